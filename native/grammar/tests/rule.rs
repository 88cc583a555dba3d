//! The rule on a toy model: what it lets through is JSON of the schema, drafting changes nothing, and a rule whose state is not
//! taken back is noticed.

use serde_json::{Value, json};
use specula_decoding::verify::verify;
use specula_decoding::{Chain, PolicyError, Row, Rule, Sampling, TokenBytes, TokenId, TokenTree};
use specula_grammar::Grammars;

const END: TokenId = 0;
const OTHER_END: TokenId = 1;

/// Two end tokens, the characters of ASCII, and some tokens of several characters.
fn vocabulary() -> TokenBytes {
    let mut words: Vec<Vec<u8>> = vec![Vec::new(), Vec::new()];
    words.extend((0..128_u8).map(|byte| vec![byte]));
    let more = [
        "{\"", "\":", "\": ", "\",", "\"}", "},", "name", "size", "tru", "true", "false", "12", "[1", "], \"",
        "\u{e4}", "\u{f6}",
    ];
    words.extend(more.iter().map(|word| word.as_bytes().to_vec()));
    words.push(vec![0xff]);
    TokenBytes(words.into_iter().map(Vec::into_boxed_slice).collect())
}

fn grammars() -> Grammars {
    let bytes = vocabulary();
    Grammars::new(&bytes, bytes.0.len() + 3, &[END, OTHER_END]).expect("it has end tokens")
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "size": {"type": "integer", "minimum": 0, "maximum": 300},
            "kind": {"enum": ["true", true, null, "äö"]},
            "list": {"type": "array", "items": {"$ref": "#/$defs/flag"}, "maxItems": 3}
        },
        "required": ["name", "size", "kind", "list"],
        "additionalProperties": false,
        "$defs": {"flag": {"type": "boolean"}}
    })
}

/// A row that depends on the text alone.
fn logits(text: &[TokenId], vocab_size: usize) -> Vec<f32> {
    let mut state = text.iter().fold(11_u64, |h, token| (h ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3));
    (0..vocab_size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 22) as f32
        })
        .collect()
}

/// A rule that forgets to take its state back: what was drafted counts as committed.
struct NotTakenBack(Box<dyn Rule>);

impl Rule for NotTakenBack {
    fn apply(&mut self, path: &[TokenId], first: usize, rows: &mut [&mut Row]) -> Result<(), PolicyError> {
        self.0.apply(path, first, rows)?;
        self.0.commit(path)
    }

    fn commit(&mut self, _tokens: &[TokenId]) -> Result<(), PolicyError> {
        Ok(())
    }
}

/// Decodes until an end token or `most` tokens; `window` draft tokens a round, right about half of the time.
fn decode(rule: Box<dyn Rule>, seed: u64, window: usize, most: usize) -> Result<Vec<TokenId>, String> {
    let vocab_size = vocabulary().0.len() + 3;
    let mut text: Vec<TokenId> = Vec::new();
    let mut chain = Chain::new(Sampling { seed, ..Sampling::default() }, &[], vec![rule]);
    // The same grammar guesses well; every other guess is off.
    let mut guesses = Chain::new(
        Sampling { seed, ..Sampling::default() },
        &[],
        vec![grammars().json_schema(&schema()).expect("understood")],
    );
    while text.len() < most && text.last().is_none_or(|last| *last != END && *last != OTHER_END) {
        let mut draft: Vec<TokenId> = Vec::new();
        for i in 0..window {
            let mut row = Row::new(&logits(&[&text[..], &draft].concat(), vocab_size));
            guesses.process(&draft, i, &mut [&mut row]).map_err(|error| error.to_string())?;
            let guess = guesses.draw(&row, i).unwrap_or(b'x'.into());
            let wrong = (text.len() + i + seed as usize) % 3 == 2;
            draft.push(if wrong { (guess + 7) % vocab_size as TokenId } else { guess });
        }
        let mut rows: Vec<Row> =
            (0..=window).map(|i| Row::new(&logits(&[&text[..], &draft[..i]].concat(), vocab_size))).collect();
        chain.process(&draft, 0, &mut rows.iter_mut().collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        let tree = TokenTree::chain(&draft);
        let verdict = verify(&tree, |node| {
            let depth = node.map_or(0, |n| n + 1);
            chain.draw(&rows[depth], depth)
        });
        let verdict = verdict.map_err(|error| error.to_string())?;
        let mut kept: Vec<TokenId> = draft[..verdict.path.len()].to_vec();
        kept.push(verdict.next);
        if let Some(end) = kept.iter().position(|token| *token == END || *token == OTHER_END) {
            kept.truncate(end + 1);
        }
        chain.commit(&kept).map_err(|error| error.to_string())?;
        guesses.commit(&kept).map_err(|error| error.to_string())?;
        text.extend(kept);
    }
    text.truncate(most);
    Ok(text)
}

fn rule() -> Box<dyn Rule> {
    grammars().json_schema(&schema()).expect("understood")
}

#[test]
fn what_comes_is_json_of_the_schema() {
    let bytes = vocabulary();
    let mut whole = 0;
    for seed in 0..20 {
        let tokens = decode(rule(), seed, 0, 400).expect("it decodes");
        let Some((&(END | OTHER_END), value)) = tokens.split_last() else { continue };
        let text: Vec<u8> = value.iter().flat_map(|token| bytes.get(*token)).copied().collect();
        let text = String::from_utf8(text).expect("JSON is text");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value["size"].as_u64().is_some_and(|size| size <= 300), "{text}");
        assert!(value["name"].as_str().is_some_and(|name| name.chars().count() <= 6), "{text}");
        assert!(
            value["list"].as_array().is_some_and(|list| list.len() <= 3 && list.iter().all(Value::is_boolean)),
            "{text}"
        );
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(4), "{text}");
        whole += 1;
    }
    assert!(whole > 10, "{whole} of 20 came to their end");
}

#[test]
fn drafting_changes_nothing() {
    for seed in 0..10 {
        let plain = decode(rule(), seed, 0, 120).expect("it decodes");
        for window in [1, 3, 8] {
            assert_eq!(decode(rule(), seed, window, 120).expect("it decodes"), plain, "seed {seed}, window {window}");
        }
    }
}

#[test]
fn state_that_is_not_taken_back_is_noticed() {
    let noticed = (0..10).filter(|seed| {
        let plain = decode(rule(), *seed, 0, 60).expect("it decodes");
        decode(Box::new(NotTakenBack(rule())), *seed, 3, 60) != Ok(plain)
    });
    assert_eq!(noticed.count(), 10);
}

#[test]
fn rows_behind_what_is_forbidden_forbid_all_and_ends_come_at_ends_only() {
    let vocab_size = vocabulary().0.len() + 3;
    let mut rule = grammars().json_schema(&json!({"enum": [12]})).expect("understood");
    let token = |c: u8| TokenId::from(c) + 2;
    let allowed = |rule: &mut Box<dyn Rule>, path: &[TokenId]| -> Vec<Vec<TokenId>> {
        let mut rows = vec![Row::new(&vec![0.0; vocab_size]); path.len() + 1];
        rule.apply(path, 0, &mut rows.iter_mut().collect::<Vec<_>>()).expect("it masks");
        rows.iter().map(support).collect()
    };
    let twelve = (0..vocab_size as TokenId).find(|t| vocabulary().get(*t) == b"12").expect("it is a token");
    let begin = vec![token(b'1'), twelve];
    let ends = vec![END, OTHER_END];
    for _ in 0..2 {
        assert_eq!(
            allowed(&mut rule, &[token(b'1'), token(b'2'), END, OTHER_END, token(b'1'), END]),
            [begin.clone(), vec![token(b'2')], ends.clone(), ends.clone(), ends.clone(), vec![], vec![]]
        );
        assert_eq!(allowed(&mut rule, &[twelve, token(b'2')]), [begin.clone(), ends.clone(), vec![]]);
        assert_eq!(allowed(&mut rule, &[token(b'x'), token(b'1')]), [begin.clone(), vec![], vec![]]);
    }
    rule.commit(&[token(b'1'), token(b'2'), END]).expect("it fits");
    assert_eq!(allowed(&mut rule, &[]), [ends]);
}

/// What a masked row of equal logits lets through.
fn support(row: &Row) -> Vec<TokenId> {
    (0..row.logits().len() as TokenId).filter(|token| row.logits()[*token as usize] == 0.0).collect()
}

/// A model that likes blanks best comes to the value's end.
#[test]
fn blanks_between_parts_are_few() {
    let bytes = vocabulary();
    let mut rule =
        grammars().json_schema(&json!({"type": "array", "items": {"enum": [1]}, "minItems": 2, "maxItems": 2}));
    let rule = rule.as_mut().expect("understood");
    let mut text = String::new();
    loop {
        let mut row = Row::new(&vec![0.0; bytes.0.len() + 3]);
        rule.apply(&[], 0, &mut [&mut row]).expect("it masks");
        let allowed = support(&row);
        let is_blank = |token: &&TokenId| bytes.get(**token).iter().any(u8::is_ascii_whitespace);
        let token = *allowed.iter().find(is_blank).unwrap_or(&allowed[0]);
        rule.commit(&[token]).expect("it was allowed");
        if token == END {
            break;
        }
        text.push_str(std::str::from_utf8(bytes.get(token)).expect("ASCII"));
        assert!(text.len() < 200, "{text:?}");
    }
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(value, json!([1, 1]));
    assert!(text.contains(char::is_whitespace), "{text:?}");
}

#[test]
fn schemas_that_cannot_be_enforced_are_refused_with_reasons() {
    let grammars = grammars();
    for (schema, word) in [
        (json!([]), "object"),
        (json!({"type": "tree"}), "tree"),
        (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
        (json!({"$ref": "#/nowhere"}), "nowhere"),
        (json!({"type": "string", "pattern": "("}), ""),
        (json!({"enum": []}), ""),
        (json!({"type": "object", "x-guidance": {"whitespace_flexible": true}}), "x-guidance"),
    ] {
        let error = grammars.json_schema(&schema).err().unwrap_or_else(|| panic!("{schema} was taken")).to_string();
        assert!(error.contains(word) && error.len() <= 512, "{error}");
    }
    assert!(Grammars::new(&vocabulary(), 140, &[]).is_err(), "no end token");
}
