//! The CUDA kernels' own sources, compiled to C++ and run on the host: what they find in rows is what is found in whole rows,
//! to the bit, and attention is attention.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use specula_decoding::{Logits, Noise, Reduction};

/// A program made of a kernel.
fn compiled(name: &str) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernel-{name}"));
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    // Fused multiply-adds would change bits, as they would on a device.
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-o"]);
    let status = command.arg(&program).arg(sources.join(format!("{name}.cpp"))).status();
    let status = status.unwrap_or_else(|error| panic!("{compiler}: {error}; a C++ compiler is needed (Debian: g++)"));
    assert!(status.success(), "{name}.cpp does not compile");
    program
}

/// What a program answers to words of four bytes.
fn answer(program: &Path, asked: &[u32]) -> Vec<u32> {
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let bytes: Vec<u8> = asked.iter().flat_map(|word| word.to_le_bytes()).collect();
    child.stdin.take().expect("piped").write_all(&bytes).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    output.stdout.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn bits(values: &[f32]) -> impl Iterator<Item = u32> {
    values.iter().map(|value| value.to_bits())
}

/// Spread-out numbers, some of them equal.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let noise = Noise::new(seed, 1);
    (0..count as u32)
        .map(|i| (noise.gumbel(1, i) * 8.0).round() / 4.0 + if i.is_multiple_of(3) { 0.01 } else { 0.0 })
        .collect()
}

#[test]
fn kernels_find_the_best_of_rows_to_the_bit() {
    let program = compiled("reduce");
    let rows = 3;
    // Less than a chunk, exactly one, and several with a rest.
    for vocab in [300, 4096, 9001] {
        let mut logits = numbers(rows * vocab, vocab as u64);
        logits[7] = f32::NEG_INFINITY;
        let whole = Logits::new(logits.clone(), vocab);
        let noise = Noise::new(0x1234_5678_9abc_def0, 2);
        for (temperature, count) in [(0.0, 1), (1.0, 1), (0.7, 9), (1.3, 64)] {
            let positions = vec![3, 4, 900];
            let reduction = Reduction { temperature, noise, positions, ranked: count, top: count };
            for (noisy, want) in [(1, 0), (0, 1)] {
                let seed = noise.seed();
                let summed = u32::from(noisy == 0 && temperature > 0.0);
                let mut asked = vec![rows as u32, vocab as u32, noisy, count as u32, noise.choice(), seed as u32];
                asked.extend([(seed >> 32) as u32, temperature.to_bits(), summed]);
                asked.extend(&reduction.positions);
                asked.extend(bits(&logits));
                let got = answer(&program, &asked);
                let (tokens, rest) = got.split_at(rows * count);
                let (scores, sums) = rest.split_at(rows * count);
                for (row, found) in reduction.of(&whole).into_iter().enumerate() {
                    let list = if want == 0 { found.ranked } else { found.top };
                    let (ids, values): (Vec<u32>, Vec<u32>) = list.iter().map(|(t, s)| (*t, s.to_bits())).unzip();
                    let at = row * count..(row + 1) * count;
                    assert_eq!(tokens[at.clone()], ids, "vocabulary {vocab}, temperature {temperature}");
                    assert_eq!(scores[at], values, "vocabulary {vocab}, temperature {temperature}");
                    if summed == 1 {
                        let chunks = vocab.div_ceil(4096);
                        let parts: Vec<f64> =
                            sums[2 * row * chunks..].iter().map(|bits| f64::from(f32::from_bits(*bits))).collect();
                        let t = f64::from(temperature);
                        let z: f64 = (0..chunks).map(|c| parts[2 * c + 1] * (parts[2 * c] / t).exp()).sum();
                        assert!((z.ln() - found.log_z).abs() < 1e-5, "{} for {}", z.ln(), found.log_z);
                    }
                }
            }
        }
    }
}

#[test]
fn kernels_attend_along_paths() {
    let program = compiled("attention");
    let (slots, heads, kv_heads, dim) = (70, 6, 2, 64);
    let paths: [(u32, &[u32]); 5] = [(1, &[]), (5, &[9, 12]), (50, &[]), (33, &[40, 41, 60, 69]), (3, &[4])];
    let rows = paths.len();
    let (q, k, v) =
        (numbers(rows * heads * dim, 1), numbers(slots * kv_heads * dim, 2), numbers(slots * kv_heads * dim, 3));
    let extra: Vec<u32> = paths.iter().flat_map(|path| path.1).copied().collect();
    let mut asked = vec![rows as u32, slots as u32, heads as u32, kv_heads as u32, dim as u32, extra.len() as u32];
    let mut from = 0;
    for (prefix, extra) in paths {
        asked.extend([prefix, from, extra.len() as u32]);
        from += extra.len() as u32;
    }
    asked.extend(&extra);
    [&q, &k, &v].into_iter().for_each(|values| asked.extend(bits(values)));
    let got: Vec<f32> = answer(&program, &asked).into_iter().map(f32::from_bits).collect();
    for (row, (prefix, extra)) in paths.iter().enumerate() {
        let path: Vec<usize> = (0..*prefix).chain(extra.iter().copied()).map(|slot| slot as usize).collect();
        for head in 0..heads {
            let at = (row * heads + head) * dim;
            let kv = |slot: usize| (slot * kv_heads + head / (heads / kv_heads)) * dim;
            let dot = |slot: usize| -> f64 {
                q[at..at + dim].iter().zip(&k[kv(slot)..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let scores: Vec<f64> = path.iter().map(|slot| dot(*slot) / (dim as f64).sqrt()).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
            for d in 0..dim {
                let weighed = path.iter().zip(&scores).map(|(slot, s)| (s - most).exp() * f64::from(v[kv(*slot) + d]));
                let want = weighed.sum::<f64>() / total;
                assert!(
                    (f64::from(got[at + d]) - want).abs() < 1e-4,
                    "row {row}, head {head}: {} for {want}",
                    got[at + d]
                );
            }
        }
    }
}
