//! Every trainer on tiny models of every architecture: what is learnt lowers its loss, what is written can be served, and a
//! run that is broken off goes on to the same bits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;
use specula_decoding::model::chain_nodes;
use specula_models::{Batch, Compute, Exits, LoadedModel, ModelFolder, Network, Precision, Streams};
use specula_training::{Outcome, Place, train_draft, train_exit, train_target, train_tokenizer};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("specula-training-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    fn at(&self, name: &str) -> Place {
        Place::new(self.0.join(name), Arc::default())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Conversations that can be learnt by heart, a tokenizer for them, and a folder for everything else.
fn prepared() -> Result<Folder> {
    let folder = Folder::new();
    let line = |i: usize| {
        let name = ["tar", "grep", "find", "sed"][i % 4];
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"How do I use {name}?\"}}, {{\"role\": \"assistant\", \
             \"content\": \"Run {name} --help and read what {name} says.\"}}]}}\n"
        )
    };
    folder.write("train.jsonl", &(0..40).map(line).collect::<String>());
    folder.write("valid.jsonl", &(0..4).map(line).collect::<String>());
    let recipe = folder.write(
        "tokenizer.toml",
        r#"
        files = ["train.jsonl"]
        vocab_size = 300
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        end = "<|im_end|>"
        chat_template = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"""
        "#,
    );
    train_tokenizer(&recipe, &folder.0.join("tokenizer"))?;
    Ok(folder)
}

fn shape(architecture: &str, layers: usize) -> String {
    let (kv_heads, positions) = if architecture == "opt" { (4, "") } else { (2, "rope_theta = 10000.0\n") };
    format!(
        "[model.shape]\narchitecture = \"{architecture}\"\nhidden = 32\nlayers = {layers}\nheads = 4\n\
         kv_heads = {kv_heads}\nhead_dim = 8\nfeed_forward = 64\nvocab_size = 320\ncontext = 128\nend_token = 2\n{positions}"
    )
}

const DATA: &str = "[data]\nfiles = [\"train.jsonl\"]\nvalidation = \"valid.jsonl\"\nlength = 64\n";

fn schedule(steps: usize) -> String {
    format!("[training]\nsteps = {steps}\nbatch = 4\nlearning_rate = 5e-3\nwarmup = 2\ncheckpoint = {steps}\n")
}

fn target(folder: &Folder, architecture: &str, steps: usize) -> Result<PathBuf> {
    let model = format!("[model]\nbase = \"tokenizer\"\n{}", shape(architecture, 4));
    let recipe = folder.write("target.toml", &format!("{model}{DATA}{}", schedule(steps)));
    assert_eq!(train_target(&recipe, &folder.at("target"))?, Outcome::Finished);
    Ok(folder.0.join("target/model"))
}

/// The first and the last measurement of a run.
fn measured(folder: &Path) -> Result<(Value, Value)> {
    let log = fs::read_to_string(folder.join("log.jsonl"))?;
    let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let measured: Vec<Value> = lines.into_iter().filter(|line| line["validation_loss"].is_number()).collect();
    let first = measured.first().expect("a measurement before the first step").clone();
    Ok((first, measured.last().expect("that, if there are no more").clone()))
}

fn assert_learnt(folder: &Path) -> Result<()> {
    let (first, last) = measured(folder)?;
    let [first, last] = [first, last].map(|m| m["validation_loss"].as_f64().expect("a number"));
    assert!(last < 0.9 * first, "{}: the loss went from {first} to {last}", folder.display());
    Ok(())
}

/// Both decoders read of a folder's streams what the network in training does.
fn assert_streams_are_decoded_as_trained(folder: &Path) -> Result<()> {
    let ModelFolder { config, tensors, tokenizer, .. } = ModelFolder::open(folder, None)?;
    let text = tokenizer.encode_prompt("Run tar --help and read").map_err(anyhow::Error::msg)?;
    let take = |name: &str, _: &[usize]| tensors.get(name).cloned().ok_or_else(|| format!("{name} is missing"));
    let network = Network::new(config, &take, Precision::F32).map_err(anyhow::Error::msg)?;
    let streams = Streams::open(&folder.join("streams.safetensors")).map_err(anyhow::Error::msg)?;
    let states = network.states(&Batch::new(&[vec![&text]], text.len(), 0), Some(&streams))?;
    let want = states.iter().map(|s| network.logits(s)?.to_vec2::<f32>()).collect::<candle_core::Result<Vec<_>>>()?;
    for compute in [Compute::Kernels, Compute::Candle] {
        let mut session = LoadedModel::open_on(folder, compute)?.model.session()?;
        assert_eq!(session.streams(), 2);
        let last = text.len() - 1;
        let rows = session.look_ahead(&chain_nodes(&text, 0), &[0, last], 2)?;
        let places = [(last, 0, last), (text.len(), 1, 0), (text.len() + 1, 2, 0), (text.len() + 3, 2, last)];
        for (row, stream, at) in places {
            let gap = rows.row(row).iter().zip(&want[stream][at]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-3, "{compute:?}, stream {stream} after token {at}: {gap} apart");
        }
    }
    Ok(())
}

/// Folder and GGUF say the same; GGUF has no OPT.
fn assert_the_gguf_says_the_same(folder: &Path, architecture: &str) -> Result<()> {
    let served = LoadedModel::open(folder)?;
    let gguf = folder.with_extension("gguf");
    if architecture == "opt" {
        assert!(!gguf.exists());
        return Ok(());
    }
    let packed = LoadedModel::open(&gguf)?;
    let prompt = served.tokenizer.encode_prompt("How do I use tar?").map_err(anyhow::Error::msg)?;
    assert_eq!(prompt, packed.tokenizer.encode_prompt("How do I use tar?").map_err(anyhow::Error::msg)?);
    let (a, b) = (served.model.trace(&prompt)?.logits, packed.model.trace(&prompt)?.logits);
    let gap = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap < 0.5, "{architecture}: logits of folder and GGUF differ by {gap}");
    Ok(())
}

#[test]
fn targets_exits_and_drafts_of_every_architecture() -> Result<()> {
    for architecture in ["llama", "mistral", "qwen2", "qwen3", "opt"] {
        let folder = prepared()?;
        let target = target(&folder, architecture, 30)?;
        assert_learnt(&folder.0.join("target"))?;
        assert_the_gguf_says_the_same(&target, architecture)?;

        let teacher = "[teacher]\ntarget = \"target/model\"\ntop = 16\nacceptance = 0.5\n";
        let trial = "[trial]\nprompts = 2\ntokens = 12\n";
        let recipe = folder.write("draft.toml", &format!(
            "{teacher}[model]\nbase = \"tokenizer\"\n{}{DATA}{}{trial}[streams]\ncount = 2\nlayers = 1\nweight = 0.5\n",
            shape(architecture, 2), schedule(30)
        ));
        assert_eq!(train_draft(&recipe, &folder.at("draft"))?, Outcome::Finished);
        assert_learnt(&folder.0.join("draft"))?;
        let (_, last) = measured(&folder.0.join("draft"))?;
        for name in ["acceptance_length", "streaming_acceptance_length"] {
            let length = last[format!("{name}_window_4_temperature_0")].as_f64().expect("an acceptance length");
            assert!((1.0..=5.0).contains(&length), "{name}: {length}");
        }
        assert_streams_are_decoded_as_trained(&folder.0.join("draft/model"))?;
        let wrong = fs::read_to_string(&recipe)?.replace("acceptance = 0.5", "acceptance = 1.5");
        let error = train_draft(&folder.write("wrong.toml", &wrong), &folder.at("wrong")).expect_err("a share above 1");
        assert!(error.to_string().contains("`teacher.acceptance` = 1.5 must be 0 to 1"), "{error:#}");

        let alone = format!(
            "{teacher}[model]\nbase = \"draft/model\"\n{DATA}{}{trial}[streams]\ncount = 2\nlayers = 1\nweight = 0.5\nalone = true\n",
            schedule(4)
        );
        assert_eq!(train_draft(&folder.write("streams.toml", &alone), &folder.at("streams"))?, Outcome::Finished);
        let kept = |name: &str| fs::read(folder.0.join(name));
        assert!(
            kept("draft/model/model.safetensors")? == kept("streams/model/model.safetensors")?,
            "the draft changed"
        );
        assert!(kept("draft/model/streams.safetensors")? != kept("streams/model/streams.safetensors")?, "none learned");

        let recipe = folder.write(
            "lora.toml",
            &format!(
                "{teacher}[model]\nbase = \"draft/model\"\n[model.lora]\nrank = 4\nalpha = 8.0\n{DATA}{}{trial}",
                schedule(4)
            ),
        );
        assert_eq!(train_draft(&recipe, &folder.at("lora"))?, Outcome::Finished);
        LoadedModel::open(&folder.0.join("lora/model"))?;

        let recipe =
            folder.write("exit.toml", &format!("draft = \"draft/model\"\n{teacher}{DATA}{}{trial}", schedule(20)));
        assert_eq!(train_exit(&recipe, &folder.at("exit"))?, Outcome::Finished);
        assert_learnt(&folder.0.join("exit"))?;
        let exits = Exits::open(&folder.0.join("exit/exit.safetensors")).map_err(anyhow::Error::msg)?;
        assert_eq!(exits.layers().collect::<Vec<_>>(), [1, 2, 3]);
        let coverage: Value = serde_json::from_slice(&fs::read(folder.0.join("exit/coverage.json"))?)?;
        assert_eq!(coverage.as_array().map(Vec::len), Some(3), "temperatures 0, 0.7 and 1");
        let again = format!("base = \"exit/exit.safetensors\"\n{teacher}{DATA}{}{trial}", schedule(1));
        assert_eq!(
            train_exit(&folder.write("measure.toml", &again.replace("steps = 1", "steps = 0")), &folder.at("measure"))?,
            Outcome::Finished
        );
        let loss = |name: &str| -> Result<f64> {
            measured(&folder.0.join(name))?.1["validation_loss"].as_f64().context("a validation loss")
        };
        let (trained, kept) = (loss("exit")?, loss("measure")?);
        assert!((trained - kept).abs() < 0.02, "a loss of {trained} is {kept} when the exits are measured again");
        let one = format!("layers = [2]\n{again}");
        assert_eq!(train_exit(&folder.write("one.toml", &one), &folder.at("one"))?, Outcome::Finished);
        let tensors = |name: &str| -> Result<BTreeMap<String, Vec<f32>>> {
            let path = folder.0.join(name).join("exit.safetensors");
            let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)?.into_iter();
            let read = |t: candle_core::Tensor| t.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1();
            tensors.map(|(name, tensor)| Ok((name, read(tensor)?))).collect()
        };
        let (before, after) = (tensors("exit")?, tensors("one")?);
        let changed = before.keys().filter(|name| before[*name] != after[*name]).collect::<Vec<_>>();
        assert!(before.len() == after.len() && changed == ["exit.2.bias", "exit.2.weight"], "{changed:?} changed");
    }
    Ok(())
}

/// Stopped after every step and taken up again, a run ends with the bits of one that was never stopped, and on one core
/// with those of passes computed side by side.
#[test]
fn interrupted_runs_go_on_to_the_same_bits() -> Result<()> {
    for precision in ["f32", "bf16"] {
        let folder = prepared()?;
        let model = format!("[model]\nbase = \"tokenizer\"\n{}", shape("qwen3", 2));
        let schedule = format!("{}accumulate = 3\nprecision = \"{precision}\"\n", schedule(5));
        let recipe = folder.write("target.toml", &format!("{model}{DATA}{schedule}"));
        let cores = |count| rayon::ThreadPoolBuilder::new().num_threads(count).build();
        assert_eq!(cores(2)?.install(|| train_target(&recipe, &folder.at("whole")))?, Outcome::Finished);
        let stopped = Place::new(folder.0.join("pieces"), Arc::new(AtomicBool::new(true)));
        let outcomes = (0..5).map(|_| cores(1)?.install(|| train_target(&recipe, &stopped)));
        let outcomes = outcomes.collect::<Result<Vec<_>>>()?;
        let steps: Vec<Outcome> = (1..5).map(Outcome::Interrupted).chain([Outcome::Finished]).collect();
        assert_eq!(outcomes, steps);
        let kept = |name: &str| -> Result<BTreeMap<String, Vec<f32>>> {
            let path = folder.0.join(name).join("checkpoint.safetensors");
            let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu)?;
            tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.flatten_all()?.to_vec1()?))).collect()
        };
        assert!(kept("whole")? == kept("pieces")?, "the checkpoints differ, {precision}");
        assert!(folder.0.join("pieces/loss.svg").exists());
    }
    Ok(())
}

/// Half way to a later model the loss is between both; a temperature takes preferences away.
#[test]
fn models_can_be_mixed_and_calibrated() -> Result<()> {
    let folder = prepared()?;
    target(&folder, "qwen3", 10)?;
    let begun = |start: &str, steps: usize, name: &str| -> Result<(Value, Value)> {
        let model = format!("[model]\nbase = \"target/model\"\n{start}\n");
        let schedule = schedule(20).replace("steps = 20", &format!("steps = {steps}"));
        train_target(&folder.write("begun.toml", &format!("{model}{DATA}{schedule}")), &folder.at(name))?;
        LoadedModel::open(&folder.0.join(name).join("model"))?;
        measured(&folder.0.join(name))
    };
    let loss = |measured: &Value| measured["validation_loss"].as_f64().expect("a number");
    // With itself it is what it was; the rest of the run makes the other.
    let (first, last) = begun("mixed = { with = \"target/model\", share = 0.5 }", 20, "later")?;
    assert!((loss(&first) - loss(&measured(&folder.0.join("target"))?.1)).abs() < 0.02, "{first}");
    let (between, _) = begun("mixed = { with = \"later/model\", share = 0.5 }", 0, "between")?;
    assert!(loss(&last) < loss(&between) && loss(&between) < loss(&first), "{first} {between} {last}");
    let error = begun("mixed = { with = \"later/model\", share = 1.5 }", 0, "wrong").expect_err("a share above 1");
    assert!(format!("{error:#}").contains("`model.mixed.share` = 1.5 must be between 0 and 1"), "{error:#}");

    // Rows nearly without preferences: the loss is that of 320 tokens of which none is likelier.
    let (flat, _) = begun("temperature = 1e4", 0, "flat")?;
    assert!((loss(&flat) - 320_f64.ln()).abs() < 0.01, "{flat}");
    let error = begun("temperature = 0.0", 0, "wrong").expect_err("a temperature of 0");
    assert!(format!("{error:#}").contains("`model.temperature` = 0 must be a number above 0"), "{error:#}");
    let new = format!("temperature = 1.1\n{}", shape("qwen3", 4));
    let error = begun(&new, 1, "wrong").expect_err("a temperature of nothing");
    assert!(format!("{error:#}").contains("leave out `model.shape`"), "{error:#}");
    Ok(())
}

/// On machines without AMX both are the same.
#[test]
fn mixed_precision_learns_what_f32_does() -> Result<()> {
    let folder = prepared()?;
    let model = format!("[model]\nbase = \"tokenizer\"\n{}", shape("qwen3", 4));
    let loss = |precision: &str| -> Result<f64> {
        let schedule = format!("{}precision = \"{precision}\"\n", schedule(30));
        let recipe = folder.write("target.toml", &format!("{model}{DATA}{schedule}"));
        assert_eq!(train_target(&recipe, &folder.at(precision))?, Outcome::Finished);
        assert_learnt(&folder.0.join(precision))?;
        measured(&folder.0.join(precision))?.1["validation_loss"].as_f64().context("a validation loss")
    };
    let (whole, mixed) = (loss("f32")?, loss("bf16")?);
    assert!((whole - mixed).abs() < 0.05 * whole, "a loss of {mixed}, in f32 {whole}");
    Ok(())
}

#[test]
fn bad_lines_are_told_by_number_and_refused_or_skipped() -> Result<()> {
    let folder = prepared()?;
    let good = fs::read_to_string(folder.0.join("train.jsonl"))?;
    folder.write("train.jsonl", &format!("{good}{{\"messages\": 3}}\n{good}"));
    let model = format!("[model]\nbase = \"tokenizer\"\n{}", shape("llama", 2));
    let recipe = folder.write("refuse.toml", &format!("{model}{DATA}{}", schedule(1)));
    let error = train_target(&recipe, &folder.at("refused")).expect_err("a bad line").to_string();
    assert!(error.contains("train.jsonl, line 41") && error.contains("bad_lines"), "{error}");
    let recipe = folder.write("skip.toml", &format!("{model}{DATA}bad_lines = \"skip\"\n{}", schedule(1)));
    assert_eq!(train_target(&recipe, &folder.at("skipped"))?, Outcome::Finished);
    Ok(())
}

#[test]
fn another_recipes_checkpoint_is_refused() -> Result<()> {
    let folder = prepared()?;
    target(&folder, "qwen3", 1)?;
    let error = target(&folder, "qwen3", 2).expect_err("the folder holds another run").to_string();
    assert!(error.contains("another recipe"), "{error}");
    Ok(())
}
