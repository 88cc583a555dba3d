//! What every kernel promises: the same bits on every instruction set this machine has, for one row or many, alone or
//! with helpers, for some chosen shapes and some that chance chose. And the right numbers, against the same sums in f64.

use half::{bf16, f16};
use specula_kernels::{
    HeadNorm, HeadShape, Isa, KeyValues, Matrix, Path, Scratch, Team, Turn, add_to_rows, attend, gate, layer_norm_rows,
    norm_rows, products, relu, turn_heads,
};

/// A generator (xorshift64) whose values every run repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Evenly over −1…1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn teams() -> Vec<Team> {
    let alone = Isa::available().into_iter().map(Team::alone);
    let helped = [1, 2].map(|helpers| Team::start(Isa::best(), (0..helpers).map(|_| || {}).collect()));
    alone.chain(helped.into_iter().map(|team| team.expect("threads"))).collect()
}

/// Q8_0 blocks with every kind of scale and with −128, which quantisers avoid but files may hold.
fn q8_0(random: &mut Random, out: usize, input: usize) -> Matrix {
    let mut blocks = Vec::new();
    for _ in 0..out * input / 32 {
        let scale = [0.013, -0.5, 1e-7, 0.0][random.below(4)] * (1.0 + random.float());
        blocks.extend(f16::from_f32(scale).to_le_bytes());
        blocks.extend((0..32).map(|_| if random.below(5) == 0 { 128 } else { random.next() as u8 }));
    }
    Matrix::q8_0(out, input, &blocks).expect("whole blocks")
}

/// Blocks of any bits but for their scales, which are numbers.
fn k_quants(random: &mut Random, blocks: usize, bytes: usize, scales: &[usize]) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..blocks {
        let mut block: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
        for at in scales {
            block[*at..at + 2].copy_from_slice(&f16::from_f32(random.float() * 1e-3).to_le_bytes());
        }
        all.extend(block);
    }
    all
}

fn every_format(random: &mut Random, out: usize, input: usize) -> Vec<(&'static str, Matrix)> {
    let mut formats = byte_and_dense_formats(random, out, input);
    if input.is_multiple_of(256) {
        let blocks = out * input / 256;
        let (four, five) = (k_quants(random, blocks, 144, &[0, 2]), k_quants(random, blocks, 176, &[0, 2]));
        let six = k_quants(random, blocks, 210, &[208]);
        formats.push(("q4_k", Matrix::q4_k(out, input, &four).expect("whole blocks")));
        formats.push(("q5_k", Matrix::q5_k(out, input, &five).expect("whole blocks")));
        formats.push(("q6_k", Matrix::q6_k(out, input, &six).expect("whole blocks")));
    }
    formats
}

fn byte_and_dense_formats(random: &mut Random, out: usize, input: usize) -> Vec<(&'static str, Matrix)> {
    let floats = random.floats(out * input);
    let f16s: Vec<f16> = floats.iter().map(|x| f16::from_f32(*x)).collect();
    let bf16s: Vec<bf16> = floats.iter().map(|x| bf16::from_f32(*x)).collect();
    vec![
        ("q8_0", q8_0(random, out, input)),
        ("f32", Matrix::f32(out, input, &floats).expect("whole rows")),
        ("f16", Matrix::f16(out, input, &f16s).expect("whole rows")),
        ("bf16", Matrix::bf16(out, input, &bf16s).expect("whole rows")),
    ]
}

fn product(team: &Team, matrices: &[&Matrix], x: &[f32]) -> Vec<f32> {
    let width: usize = matrices.iter().map(|m| m.out()).sum();
    let mut y = vec![f32::NAN; x.len() / matrices[0].input() * width];
    products(team, matrices, x, &mut Scratch::default(), &mut y);
    y
}

#[test]
fn products_have_the_same_bits_everywhere() {
    let mut random = Random(1);
    let teams = teams();
    for (out, input) in [(1, 32), (7, 64), (16, 96), (37, 128), (64, 32), (250, 320), (50, 512)] {
        for (name, matrix) in every_format(&mut random, out, input) {
            for rows in (1..=17).chain([33]) {
                let x = random.floats(rows * input);
                let singles: Vec<u32> =
                    x.chunks(input).flat_map(|x| bits(&product(&teams[0], &[&matrix], x))).collect();
                for team in &teams {
                    let y = bits(&product(team, &[&matrix], &x));
                    assert_eq!(y, singles, "{name} {out}×{input}, {rows} rows, {:?}", team.isa());
                }
            }
        }
    }
}

#[test]
fn products_are_right() {
    let mut random = Random(2);
    let team = Team::alone(Isa::best());
    for (out, input) in [(5, 32), (40, 256), (33, 1280)] {
        for (name, matrix) in every_format(&mut random, out, input) {
            let x = random.floats(3 * input);
            outputs_are_right(name, &matrix, &x, &product(&team, &[&matrix], &x));
        }
    }
}

/// Outputs y of rows x against plain sums in f64.
fn outputs_are_right(name: &str, matrix: &Matrix, x: &[f32], y: &[f32]) {
    let (out, input) = (matrix.out(), matrix.input());
    let mut row = vec![0.0; input];
    for (i, y) in y.iter().enumerate() {
        matrix.row(i % out, &mut row);
        let x = &x[i / out * input..][..input];
        let terms = row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        // f32 sums of n terms err by at most n·2⁻²⁴ of the sum of magnitudes. Rows in int8 err by up to 1/254 of a block's
        // largest value each; the scales' product and the sum of blocks are f32.
        let mut bound = size * input as f64 * 2f64.powi(-24);
        if name == "q8_0" {
            for (row, x) in row.chunks(32).zip(x.chunks(32)) {
                let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                bound += row.iter().map(|w| f64::from(w.abs())).sum::<f64>() * f64::from(most) / 254.0;
            }
        }
        assert!((f64::from(*y) - sum).abs() <= bound * 1.001 + 1e-30, "{name} {out}×{input}: {y} for {sum}");
    }
}

#[test]
fn side_by_side_is_one_after_the_other() {
    let mut random = Random(3);
    let matrices: Vec<Matrix> = [40, 7, 16].map(|out| q8_0(&mut random, out, 64)).into();
    let dense = Matrix::f32(21, 64, &random.floats(21 * 64)).expect("whole rows");
    let all: Vec<&Matrix> = matrices.iter().chain([&dense]).collect();
    let x = random.floats(6 * 64);
    for team in teams() {
        let mut want = Vec::new();
        for x in x.chunks(64) {
            want.extend(all.iter().flat_map(|m| bits(&product(&team, &[m], x))));
        }
        assert_eq!(bits(&product(&team, &all, &x)), want, "{:?}", team.isa());
    }
}

#[test]
fn wrong_shapes_are_refused() {
    assert!(Matrix::q8_0(2, 48, &[0; 102]).is_err());
    assert!(Matrix::q8_0(2, 64, &[0; 135]).is_err());
    assert!(Matrix::q4_k(2, 128, &[0; 144]).is_err());
    assert!(Matrix::q4_k(2, 256, &[0; 287]).is_err());
    assert!(Matrix::q5_k(1, 256, &[0; 177]).is_err());
    assert!(Matrix::q6_k(0, 256, &[]).is_err());
    assert!(Matrix::q6_k(1, 512, &[0; 421]).is_err());
    assert!(Matrix::f32(2, 3, &[0.0; 5]).is_err());
    assert!(Matrix::f32(0, 3, &[]).is_err());
    assert!(Matrix::f32(usize::MAX, 3, &[0.0; 3]).is_err());
}

/// Norms, gates, turned heads and attention over a path with a tree's extra slots, by every team, rows one by one and
/// together.
#[test]
fn the_rest_has_the_same_bits_everywhere() {
    let mut random = Random(4);
    let teams = teams();
    for (heads, kv_heads, dim) in [(1, 1, 2), (6, 2, 10), (8, 2, 64), (5, 1, 32), (8, 8, 128)] {
        let shape = HeadShape { heads, kv_heads, dim };
        let stride = (heads + 2 * kv_heads) * dim;
        let slots = 70;
        let table = random.floats(slots * dim / 2);
        let (query, key, bias) = (random.floats(dim), random.floats(dim), random.floats(stride));
        let norm = Some(HeadNorm { query: &query, key: &key, epsilon: 1e-6 });
        let x = random.floats(slots * stride);
        let paths: Vec<Path> = (0..slots)
            .map(|i| {
                let prefix = random.below(i + 2).min(slots - 1);
                let extra = (0..random.below(9)).map(|_| (prefix + random.below(slots - prefix)) as u32).collect();
                Path { prefix, extra }
            })
            .map(|path| if path.is_empty() { Path { prefix: 1, extra: vec![] } } else { path })
            .collect();
        let run = |team: &Team, chunk: usize| {
            let mut cache = KeyValues::new(shape);
            let mut turned = x.clone();
            for (at, rows) in turned.chunks_mut(chunk * stride).enumerate() {
                let first = at * chunk;
                let last = first + rows.len() / stride;
                cache.reserve(last);
                let angles = &table[first * dim / 2..last * dim / 2];
                let how = Turn { bias: Some(&bias), norm, cos: angles, sin: angles };
                turn_heads(team.isa(), rows, how, &mut cache, first);
            }
            let mut attended = vec![0.0; slots * heads * dim];
            for (at, to) in attended.chunks_mut(chunk * heads * dim).enumerate() {
                let rows = at * chunk..at * chunk + to.len() / (heads * dim);
                let x = &turned[rows.start * stride..rows.end * stride];
                attend(team, (x, stride), &cache, &paths[rows], to);
            }
            let mut normed = vec![0.0; x.len()];
            norm_rows(team.isa(), &x, &x[..stride], 1e-5, &mut normed);
            let mut centred = vec![0.0; x.len()];
            layer_norm_rows(team.isa(), &x, (&x[..stride], &bias), 1e-5, &mut centred);
            add_to_rows(team.isa(), &mut centred, &bias);
            let mut gated = vec![0.0; x.len() / 2];
            gate(team, &x, stride / 2, &mut gated);
            let mut cut = x.clone();
            relu(team.isa(), &mut cut);
            [turned, attended, normed, centred, gated, cut].map(|values| bits(&values))
        };
        let want = run(&teams[0], 1);
        for team in &teams {
            for chunk in [1, 3, slots] {
                assert!(run(team, chunk) == want, "{shape:?}, {:?}, {chunk} rows", team.isa());
            }
        }
    }
}

/// Layer norm against its definition in f64, of rows whose mean is large beside what they vary by.
#[test]
fn layer_norms_are_right() {
    let mut random = Random(8);
    let (weight, bias) = (random.floats(100), random.floats(100));
    let x: Vec<f32> = random.floats(300).iter().enumerate().map(|(i, x)| x + (i / 100) as f32 * 30.0).collect();
    let mut normed = vec![0.0; 300];
    layer_norm_rows(Isa::best(), &x, (&weight, &bias), 1e-5, &mut normed);
    for (x, normed) in x.chunks(100).zip(normed.chunks(100)) {
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 100.0;
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 100.0;
        for i in 0..100 {
            let want = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
            assert!((want - f64::from(normed[i])).abs() < 1e-4, "{} for {want}", normed[i]);
        }
    }
}

/// Slots beside the path, before or after it, hold what they want; and the order of the cache is nobody's business.
#[test]
fn attention_sees_its_path_only() {
    let mut random = Random(5);
    let shape = HeadShape { heads: 4, kv_heads: 2, dim: 16 };
    let team = Team::alone(Isa::best());
    let stride = 8 * 16;
    let still = Turn { bias: None, norm: None, cos: &[1.0; 8], sin: &[0.0; 8] };
    let rows = random.floats(40 * stride);
    let fill = |slots: &[usize]| {
        let mut cache = KeyValues::new(shape);
        cache.reserve(40);
        for (slot, row) in slots.iter().enumerate() {
            let mut row = rows[row * stride..(row + 1) * stride].to_vec();
            turn_heads(team.isa(), &mut row, still, &mut cache, slot);
        }
        cache
    };
    let straight: Vec<usize> = (0..25).collect();
    let mut scattered: Vec<usize> = (0..20).chain([30, 21, 33, 20, 39, 24, 23, 22]).collect();
    let extra = vec![23, 21, 27, 26, 25];
    let query = random.floats(stride);
    let attended = |cache: &KeyValues, path: Path| {
        let mut to = vec![0.0; 4 * 16];
        attend(&team, (&query, stride), cache, &[path], &mut to);
        to
    };
    let want = attended(&fill(&straight), Path { prefix: 25, extra: vec![] });
    assert_eq!(bits(&attended(&fill(&scattered), Path { prefix: 20, extra: extra.clone() })), bits(&want));
    scattered[20] = 38;
    assert_eq!(bits(&attended(&fill(&scattered), Path { prefix: 20, extra })), bits(&want));
    attended_is_right(shape, &rows, &query, &Path { prefix: 25, extra: vec![] }, &want);
}

/// Shapes, formats and rows as chance has them.
#[test]
fn products_of_any_shape_have_the_same_bits_everywhere() {
    let mut random = Random(6);
    let teams = teams();
    for _ in 0..40 {
        let (out, input, rows) = (1 + random.below(90), 32 * (1 + random.below(16)), 1 + random.below(20));
        let x: Vec<f32> = (0..rows)
            .flat_map(|row| random.floats(input).into_iter().map(move |x| x * 7f32.powi(row as i32 % 9 - 4)))
            .collect();
        for (name, matrix) in every_format(&mut random, out, input) {
            let singles: Vec<f32> = x.chunks(input).flat_map(|x| product(&teams[0], &[&matrix], x)).collect();
            outputs_are_right(name, &matrix, &x, &singles);
            for team in &teams {
                let y = bits(&product(team, &[&matrix], &x));
                assert_eq!(y, bits(&singles), "{name} {out}×{input}, {rows} rows, {:?}", team.isa());
            }
        }
    }
}

/// One row's attention against softmax in f64: the bound is what rounding can do to scores, weights and sums.
fn attended_is_right(shape: HeadShape, held: &[f32], query: &[f32], path: &Path, attended: &[f32]) {
    let (group, dim) = (shape.heads / shape.kv_heads, shape.dim);
    let stride = (shape.heads + 2 * shape.kv_heads) * dim;
    let slots: Vec<usize> = (0..path.prefix).chain(path.extra.iter().map(|slot| *slot as usize)).collect();
    for head in 0..shape.heads {
        let part = |slot: usize, part: usize| {
            &held[slot * stride + (shape.heads + part * shape.kv_heads + head / group) * dim..][..dim]
        };
        let query = &query[head * dim..][..dim];
        let terms = |slot: &usize| query.iter().zip(part(*slot, 0)).map(|(q, k)| f64::from(*q) * f64::from(*k));
        let root = (dim as f64).sqrt();
        let weights: Vec<f64> = slots.iter().map(|slot| (terms(slot).sum::<f64>() / root).exp()).collect();
        let total: f64 = weights.iter().sum();
        let largest = slots.iter().map(|slot| terms(slot).map(f64::abs).sum::<f64>() / root).fold(0.0, f64::max);
        // Values lie in −1…1.
        let bound = (2.0 * (dim + 2) as f64 * largest + 2.0 * slots.len() as f64 + 16.0) * 2f64.powi(-24);
        for (i, found) in attended[head * dim..(head + 1) * dim].iter().enumerate() {
            let mixed: f64 = slots.iter().zip(&weights).map(|(slot, w)| w / total * f64::from(part(*slot, 1)[i])).sum();
            assert!((mixed - f64::from(*found)).abs() <= bound, "{shape:?}, {path:?}: {found} for {mixed}, {bound}");
        }
    }
}

/// Rows together, whatever their heads and paths, against each alone in a cache that holds nothing but its own path: the
/// other slots are not numbers there.
#[test]
fn attention_of_any_shape_has_the_same_bits_everywhere() {
    let mut random = Random(7);
    let teams = teams();
    for _ in 0..60 {
        let (kv_heads, dim) = (1 + random.below(3), 2 * (1 + random.below(70)));
        let shape = HeadShape { heads: kv_heads * (1 + random.below(9)), kv_heads, dim };
        let (stride, width) = ((shape.heads + 2 * kv_heads) * dim, shape.heads * dim);
        let (slots, rows) = (1 + random.below(150), 1 + random.below(11));
        let held = random.floats(slots * stride);
        let still = (vec![1.0; slots * dim / 2], vec![0.0; slots * dim / 2]);
        let cache = |held: &[f32]| {
            let mut cache = KeyValues::new(shape);
            cache.reserve(slots);
            let how = Turn { bias: None, norm: None, cos: &still.0, sin: &still.1 };
            turn_heads(teams[0].isa(), &mut held.to_vec(), how, &mut cache, 0);
            cache
        };
        let whole = cache(&held);
        let near = random.below(slots + 1);
        let paths: Vec<Path> = (0..rows)
            .map(|_| {
                let prefix = (near + random.below(6)).min(random.below(3) * slots).min(slots);
                let extra = (prefix..slots).filter(|_| random.below(4) == 0).map(|slot| slot as u32).collect();
                Path { prefix, extra }
            })
            .map(|path| if path.is_empty() { Path { prefix: 1, extra: vec![] } } else { path })
            .collect();
        let queries = random.floats(rows * stride);
        let mut want = Vec::new();
        for (path, query) in paths.iter().zip(queries.chunks(stride)) {
            let mut alone = vec![f32::NAN; held.len()];
            for slot in (0..path.prefix).chain(path.extra.iter().map(|slot| *slot as usize)) {
                alone[slot * stride..(slot + 1) * stride].copy_from_slice(&held[slot * stride..(slot + 1) * stride]);
            }
            let mut to = vec![0.0; width];
            attend(&teams[0], (query, stride), &cache(&alone), std::slice::from_ref(path), &mut to);
            attended_is_right(shape, &held, query, path, &to);
            want.extend(bits(&to));
        }
        for team in &teams {
            let mut to = vec![0.0; rows * width];
            attend(team, (&queries, stride), &whole, &paths, &mut to);
            assert!(to.iter().all(|x| x.is_finite()) && bits(&to) == want, "{shape:?}, {paths:?}, {:?}", team.isa());
        }
    }
}
