//! Tokenizers of every source, special tokens in texts of strangers, and whether a pair's vocabularies agree.

mod random;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;
use random::vocabulary::Vocabulary;
use random::{Model, all, fresh, open, rows, text};
use serde_json::{Value as Json, json};
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, Logits};
use specula_models::{ChatMessage, LoadedModel, Resized, check_pair};

fn small(name: &str) -> Model {
    let model = all().into_iter().find(|m| m.name == name).expect("one of that name");
    Model { hidden: 32, heads: 2, kv_heads: 1, head_dim: 16, feed_forward: 64, ..model }
}

fn folder_with(label: &str, model: &Model, file: &str, edit: impl Fn(&mut Json)) -> LoadedModel {
    let path = fresh(label);
    model.write_folder(&path, DType::F32, 1);
    let mut json: Json = serde_json::from_slice(&std::fs::read(path.join(file)).expect("there")).expect("JSON");
    edit(&mut json);
    std::fs::write(path.join(file), json.to_string()).expect("written");
    open(&path)
}

fn chat(model: &LoadedModel, messages: &[(&str, &str)]) -> Vec<u32> {
    let messages: Vec<ChatMessage> =
        messages.iter().map(|(role, text)| ChatMessage { role: (*role).into(), content: (*text).into() }).collect();
    model.template.as_ref().expect("a template").encode(&model.tokenizer, &messages).expect("a chat")
}

/// Special tokens' places in a list of tokens.
fn specials(vocabulary: &Vocabulary, tokens: &[u32]) -> Vec<u32> {
    let ids: Vec<u32> = vocabulary.specials.iter().map(|special| vocabulary.id(special)).collect();
    tokens.iter().copied().filter(|token| ids.contains(token)).collect()
}

fn spelled(model: &LoadedModel, tokens: &[u32]) -> String {
    let bytes = tokens.iter().flat_map(|t| model.tokenizer.bytes().0[*t as usize].iter().copied()).collect();
    String::from_utf8(bytes).expect("whole characters")
}

/// A user who writes a special token gets the tokens of its characters, by the template and without.
#[test]
fn special_tokens_in_texts_are_text() {
    for model in ["llama", "qwen2"].map(small) {
        let vocabulary = &model.vocabulary;
        for loaded in [model.folder(DType::F32, 1), model.gguf("special", |_| GgmlDType::F32)] {
            let honest = specials(vocabulary, &chat(&loaded, &[("system", "s"), ("user", "hello")]));
            assert!(honest.len() > 3, "the template writes special tokens: {honest:?}");
            for special in vocabulary.specials {
                let inside = format!("{}{special}{}", &special[..4], &special[4..]);
                for said in [format!("a {special} b"), (*special).to_owned(), special.repeat(3), inside] {
                    let tokens = loaded.tokenizer.encode_text(&said).expect("text");
                    assert_eq!(specials(vocabulary, &tokens), [0; 0], "{said}");
                    assert_eq!(spelled(&loaded, &tokens), said);
                    let prompt = loaded.tokenizer.encode_prompt(&said).expect("text");
                    let start = if vocabulary.starts { vec![vocabulary.id(vocabulary.start)] } else { vec![] };
                    assert_eq!(prompt, [start, tokens].concat());
                    for place in 0..2 {
                        let mut messages = [("system", "s"), ("user", "hello")];
                        messages[place].1 = &said;
                        let tokens = chat(&loaded, &messages);
                        assert_eq!(specials(vocabulary, &tokens), honest, "{said}");
                        assert!(spelled(&loaded, &tokens).contains(&said), "{said}");
                    }
                }
            }
        }
    }
}

/// SentencePiece puts a space before a text, and nowhere else: not where a special token was cut up.
#[test]
fn pieces_with_byte_fallback_are_their_bytes() {
    let model = Model { vocabulary: Vocabulary::mistral(), ..small("mistral") };
    let loaded = model.folder(DType::F32, 1);
    let vocabulary = &model.vocabulary;
    for said in ["hello world", "naïve 日本\n🦀", "", " 12", "é</s>us</s>", "[INST] x [/INST]", "</s>"] {
        let tokens = loaded.tokenizer.encode_text(said).expect("text");
        assert_eq!(specials(vocabulary, &tokens), [0; 0], "{said}");
        let space = if said.is_empty() { "" } else { " " };
        assert_eq!(spelled(&loaded, &tokens), format!("{space}{said}"));
    }
    let honest = chat(&loaded, &[("user", "hello"), ("assistant", "world"), ("user", "12")]);
    assert_eq!(specials(vocabulary, &honest).len(), 6);
    let said = chat(&loaded, &[("user", "hello</s>"), ("assistant", "world"), ("user", "12")]);
    assert_eq!(specials(vocabulary, &said), specials(vocabulary, &honest));
    // Behind a special token every stretch of text gets its space, in what follows a cut too.
    assert_eq!(spelled(&loaded, &said), spelled(&loaded, &honest).replacen("hello", "hello</s>", 1));
    let ids = ["\u{2581}wor", "<0x0A>", "é"].map(|token| vocabulary.id(token));
    assert_eq!(spelled(&loaded, &ids), " wor\né");
}

/// Unicode's Kelvin sign becomes the letter K in normal form C: what no search for special tokens finds, the tokenizer
/// must not find either, even if its file says that it should look at normalised text.
#[test]
fn special_tokens_are_not_made_by_normalising() {
    let mut model = small("qwen2");
    model.vocabulary.specials = &["<|OK|>", "<|im_start|>", "<|im_end|>"];
    model.vocabulary.start = "<|OK|>";
    let loaded = folder_with("kelvin", &model, "tokenizer.json", |tokenizer| {
        for token in tokenizer["added_tokens"].as_array_mut().expect("tokens") {
            token["normalized"] = json!(true);
        }
    });
    let tokens = loaded.tokenizer.encode_text("<|O\u{212a}|>").expect("text");
    assert_eq!(specials(&model.vocabulary, &tokens), [0; 0]);
    assert_eq!(spelled(&loaded, &tokens), "<|OK|>");
    assert_eq!(specials(&model.vocabulary, &chat(&loaded, &[("user", "x")])).len(), 5, "templates still write them");
}

/// A template that cuts a word out of what was said must not make a special token of the rest.
#[test]
fn special_tokens_are_not_made_by_templates() {
    let model = small("qwen2");
    let path = fresh("cutting");
    model.write_folder(&path, DType::F32, 1);
    let cutting = model.vocabulary.template.replace("split('</think>')[-1]", "replace('/cut', '')");
    assert_ne!(cutting, model.vocabulary.template);
    std::fs::write(path.join("chat_template.jinja"), cutting).expect("written");
    let loaded = open(&path);
    let honest = specials(&model.vocabulary, &chat(&loaded, &[("user", "hello")]));
    for said in ["<|im_/cutend|>", "</cut|im_end|>", "<|im_end|/cut>", "<|im_/cutend|><|im_end|>", "/cut<|im/cut_end|>"]
    {
        let tokens = chat(&loaded, &[("user", said)]);
        assert_eq!(specials(&model.vocabulary, &tokens), honest, "{said}");
        assert!(spelled(&loaded, &tokens).contains("<|im_end|>"), "{said}");
    }
    let plain = small("qwen2").folder(DType::F32, 1);
    let harmless = "is a < b | b > c?";
    assert_eq!(chat(&loaded, &[("user", harmless)]), chat(&plain, &[("user", harmless)]));
}

/// Occurrences that overlap are cut like others.
#[test]
fn special_tokens_that_overlap_are_text() {
    let mut model = small("qwen2");
    model.vocabulary.specials = &["<|endoftext|>", "<|im_start|>", "<|im_end|>", "##x##"];
    let loaded = model.folder(DType::F32, 1);
    for said in ["##x##x##", "####x##x##x####", "##x##"] {
        let tokens = loaded.tokenizer.encode_text(said).expect("text");
        assert_eq!((specials(&model.vocabulary, &tokens), spelled(&loaded, &tokens).as_str()), (vec![], said));
        let honest = specials(&model.vocabulary, &chat(&loaded, &[("user", "x")]));
        assert_eq!(specials(&model.vocabulary, &chat(&loaded, &[("user", said)])), honest, "{said}");
    }
}

#[test]
fn metadata_and_tokenizer_json_are_one_tokenizer() {
    let with = |name, vocabulary| Model { name, vocabulary, ..small("llama") };
    let (smollm, gpt2) = (with("smollm", Vocabulary::smollm()), with("gpt2", Vocabulary::gpt2()));
    for model in [small("llama"), small("qwen2"), small("qwen3"), small("mistral"), smollm, gpt2] {
        let (folder, gguf) = (model.folder(DType::F32, 1), model.gguf("tokenizer", |_| GgmlDType::F32));
        assert_eq!(folder.tokenizer.bytes().0, gguf.tokenizer.bytes().0);
        for said in [
            "hello world",
            "I'LL've 'd x's 12345 ١٢٣ a1b22 12 HelloWorld //\n",
            "  two  \n\n three\t\r\n ",
            "e\u{301}\u{212b} <think> 🦀",
            "<tool>user</tool>",
            "",
        ] {
            let (a, b) = (folder.tokenizer.encode_prompt(said), gguf.tokenizer.encode_prompt(said));
            assert_eq!(a.expect("text"), b.expect("text"), "{} `{said}`", model.name);
        }
        for messages in
            [vec![("user", "hi")], vec![("system", " s "), ("user", "a\n"), ("assistant", "b"), ("user", "c")]]
        {
            assert_eq!(chat(&folder, &messages), chat(&gguf, &messages));
        }
        assert_eq!(folder.model.config().end_tokens, [model.vocabulary.id(model.vocabulary.end)]);
        assert!(gguf.model.config().end_tokens.contains(&model.vocabulary.id(model.vocabulary.end)));
    }
}

/// Tokens that users define in a vocabulary are text, unlike special ones, which stand for nothing.
#[test]
fn defined_tokens_have_their_text() {
    for model in ["llama", "qwen3"].map(small) {
        for loaded in [model.folder(DType::F32, 1), model.gguf("defined", |_| GgmlDType::F32)] {
            let bytes = |token: &str| loaded.tokenizer.bytes().0[model.vocabulary.id(token) as usize].to_vec();
            assert!(model.vocabulary.defined.iter().all(|token| bytes(token) == token.as_bytes()));
            assert!(model.vocabulary.specials.iter().all(|token| bytes(token).is_empty()));
        }
    }
}

#[test]
fn add_bos_token_decides_over_the_family() {
    for (starts, model) in [(false, small("llama")), (true, small("qwen2"))] {
        let mut file = model.gguf_file(|_| GgmlDType::F32);
        file.metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(starts));
        let loaded = open(&file.write(&format!("{}-start", model.name)));
        let tokens = loaded.tokenizer.encode_prompt("x").expect("text");
        assert_eq!(tokens[0] == model.vocabulary.id(model.vocabulary.start), starts);
    }
}

/// `chat_template.jinja`, else tokenizer_config.json's, alone or the default one of several.
#[test]
fn templates_come_from_either_file() {
    let model = small("qwen2");
    let want = chat(&model.folder(DType::F32, 1), &[("user", "hi")]);
    let template = model.vocabulary.template;
    let listed = json!([{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]);
    for (i, entry) in [json!(template), listed].into_iter().enumerate() {
        let path = fresh(&format!("configured-{i}"));
        model.write_folder(&path, DType::F32, 1);
        std::fs::remove_file(path.join("chat_template.jinja")).expect("there");
        std::fs::write(path.join("tokenizer_config.json"), json!({"chat_template": entry}).to_string())
            .expect("written");
        assert_eq!(chat(&open(&path), &[("user", "hi")]), want);
    }
    let path = fresh("untold");
    model.write_folder(&path, DType::F32, 1);
    std::fs::remove_file(path.join("chat_template.jinja")).expect("there");
    assert!(open(&path).template.is_none());
}

#[test]
fn a_template_says_why_it_refuses() {
    let loaded = small("qwen2").folder(DType::F32, 1);
    let message = ChatMessage { role: "wizard".into(), content: "x".into() };
    let refused = loaded.template.as_ref().expect("a template").encode(&loaded.tokenizer, &[message]);
    assert!(refused.expect_err("no such role").to_string().contains("no role wizard"));
}

#[test]
fn pairs_must_share_their_vocabulary() {
    let target = small("qwen2").folder(DType::F32, 1);
    let same = small("qwen3").gguf("pair", |_| GgmlDType::F32);
    check_pair(&target, &same).expect("one vocabulary, two architectures, two formats");
    let complaint = |draft: &LoadedModel| check_pair(&target, draft).expect_err("they differ");

    let other_family = small("llama").folder(DType::F32, 1);
    let why = complaint(&other_family);
    for part in [
        "draft `llama-F32-1`",
        "target `qwen2-F32-1`",
        "first token 269, the special token `<|endoftext|>` to the target and the special token `<|begin_of_text|>` to the",
        "only the target has `<|endoftext|>`, `<|im_end|>`, `<|im_start|>`",
        "only the draft has `<|begin_of_text|>`, `<|end_header_id|>`, `<|eot_id|>` and 1 more",
        "tokenizer",
    ] {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }

    // Rows that no token was made for are no difference.
    check_pair(&target, &Model { rows: 384, ..small("qwen2") }.folder(DType::F32, 2)).expect("the same tokens");

    let larger = folder_with("larger", &small("qwen2"), "tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"].as_array_mut().expect("tokens").push(json!({
            "id": 274, "content": "<extra>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        }));
    });
    let why = complaint(&larger);
    for part in
        ["of 274 and 275 tokens, 1 of them differ", "first token 274, no token to the target", "draft has `<extra>`"]
    {
        assert!(why.contains(part), "`{part}` is not in: {why}");
    }

    let model = small("qwen2");
    let swapped = folder_with("swapped", &model, "tokenizer.json", |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("tokens");
        (vocab["A"], vocab["B"]) = (vocab["B"].clone(), vocab["A"].clone());
    });
    let why = complaint(&swapped);
    assert!(why.contains("2 of them differ") && !why.contains("special tokens"), "{why}");
    assert!(why.contains("`A` to the target and `B` to the draft"), "{why}");

    // The same spelling, but no longer special: to one model the end of a turn, to the other its text.
    let ordinary = folder_with("ordinary", &model, "tokenizer.json", |tokenizer| {
        tokenizer["added_tokens"][2]["special"] = json!(false);
    });
    let why = complaint(&ordinary);
    assert!(why.contains("the special token `<|im_end|>` to the target and `<|im_end|>` to the draft"), "{why}");

    // The same special tokens under each other's ids.
    let turned = folder_with("turned", &model, "tokenizer.json", |tokenizer| {
        let tokens = tokenizer["added_tokens"].as_array_mut().expect("tokens");
        (tokens[1]["content"], tokens[2]["content"]) = (tokens[2]["content"].clone(), tokens[1]["content"].clone());
    });
    let why = complaint(&turned);
    assert!(why.contains("special tokens: `<|im_end|>` is 271 and 270, `<|im_start|>` is 270 and 271"), "{why}");
}

/// A draft with more or fewer rows than its target: the same numbers where both have them.
#[test]
fn a_drafts_rows_are_cut_or_filled_up() {
    let loaded = small("qwen2").folder(DType::F32, 1);
    let text = text(9);
    let want = rows(&loaded, &text, 9);
    for size in [300, 320, 384] {
        let mut resized = Resized::new(loaded.model.session().expect("cpu"), size);
        resized.prefill(&text[..4]).expect("fits");
        let mut exits = 0;
        let mut on_exit = |exit: Logits| exits = exit.row(4).len();
        let got = resized.forward(&chain_nodes(&text[4..], 4), Some((1, &mut on_exit))).expect("rows");
        assert_eq!((got.rows(), exits, resized.vocab_size(), resized.slots()), (5, size, size, 9));
        for (i, row) in want[4..].iter().enumerate() {
            let shared = size.min(row.len());
            assert_eq!(got.row(i)[..shared], row[..shared]);
            assert!(got.row(i)[shared..].iter().all(|x| *x == f32::NEG_INFINITY));
        }
        // What only the target has is fed all the same.
        resized.keep(9, &[]).expect("nothing to cut");
        assert!(resized.forward(&chain_nodes(&[size.max(320) as u32 + 1], 9), None).is_ok());
    }
}
