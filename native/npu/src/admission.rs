//! Whether a device may draft: its steps must choose the tokens that the CPU cores choose, and sooner. Providers hang, die
//! and compute nonsense, so this is tried in a process of its own ([`in_a_process`]) before the engine begins.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use specula_decoding::model::chain_nodes;
use specula_decoding::{LanguageModel, ModelError, NewNode, TokenId};

/// Texts that both continue.
const TEXTS: u32 = 5;
/// Rows of each text's windows, in order: every bucket of steps.
const WINDOWS: [usize; 5] = [1, 4, 8, 16, 3];
/// Share of rows that may choose otherwise. A trial has few rows, so as many more may as are chance: two standard deviations.
const OTHERWISE: f64 = 0.01;
/// Logits that are so near to each other are alike: no sum in another order, nor one in 16 bits, tells them apart.
const NEAR: f32 = 0.1;
/// Rows of steps that are timed, and how often.
const TIMED: [usize; 3] = [1, 4, 8];
const TIMES: usize = 7;
/// What timing a step may take; of a slow one fewer are timed.
const MOST: Duration = Duration::from_secs(2);
/// Of what a dying process says, how much is told.
const LAST_WORDS: usize = 400;

/// What the trial found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Who computed.
    pub computed_by: String,
    /// Compiling the graphs of the smallest cache, milliseconds.
    pub compile_ms: f64,
    /// Rows compared, and how many chose alike.
    pub rows: usize,
    /// As said.
    pub alike: usize,
    /// Steps by rows: microseconds on the device and on a CPU core.
    pub steps: Vec<(usize, f64, f64)>,
}

impl Trial {
    /// Why the device is refused; `None`: it is not. Slower devices may be let in.
    pub fn refusal(&self, slower_too: bool) -> Option<String> {
        let Self { rows, alike, .. } = *self;
        let expected = rows as f64 * OTHERWISE;
        let most = (expected + 2.0 * (expected * (1.0 - OTHERWISE)).sqrt()) as usize;
        let otherwise = rows - alike;
        if otherwise > most {
            return Some(format!(
                "it chooses other tokens than the CPU in {otherwise} of {rows} rows; at most {most} may differ"
            ));
        }
        // The mean of ratios, as speeds are compared.
        let ratio: f64 = self.steps.iter().map(|(_, device, cpu)| (device / cpu).ln()).sum::<f64>();
        (ratio >= 0.0 && !slower_too).then(|| format!("it is slower than a CPU core: {}", self.times()))
    }

    /// The steps for people.
    pub fn times(&self) -> String {
        let told = self.steps.iter().map(|(rows, device, cpu)| format!("{rows} rows {device:.0} µs, CPU {cpu:.0} µs"));
        told.collect::<Vec<_>>().join("; ")
    }
}

/// Compares a device's sequences with the reference's, and times both.
///
/// # Errors
/// Either's.
pub fn examine(
    device: &dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError>,
    reference: &dyn Fn() -> Result<Box<dyn LanguageModel>, ModelError>,
) -> Result<Trial, ModelError> {
    let mut trial = Trial::default();
    for text in 0..TEXTS {
        let (mut device, mut reference) = (device()?, reference()?);
        let mut compare = Comparison { device: &mut *device, reference: &mut *reference, trial: &mut trial };
        compare.text(text)?;
    }
    let (mut device, mut reference) = (device()?, reference()?);
    for rows in TIMED {
        trial.steps.push((rows, step_us(&mut *device, rows)?, step_us(&mut *reference, rows)?));
    }
    Ok(trial)
}

struct Comparison<'a> {
    device: &'a mut dyn LanguageModel,
    reference: &'a mut dyn LanguageModel,
    trial: &'a mut Trial,
}

impl Comparison<'_> {
    /// Both read a made-up prompt and then what the reference chooses, window by window; at last a tree.
    fn text(&mut self, text: u32) -> Result<(), ModelError> {
        let vocab = self.reference.vocab_size() as u32;
        let token = |i: u32| (i * 7919 + text * 104_729 + 13) % vocab;
        let prompt: Vec<TokenId> = (0..9 + 17 * text).map(token).collect();
        let room = self.reference.context_length().saturating_sub(WINDOWS.iter().sum::<usize>() + 4);
        let prompt = &prompt[..prompt.len().min(room.max(1))];
        self.device.prefill(prompt)?;
        self.reference.prefill(prompt)?;
        let mut next = token(prompt.len() as u32);
        for rows in WINDOWS {
            if self.reference.linear() + rows > room {
                break;
            }
            let window = self.continuation(next, rows)?;
            let nodes = chain_nodes(&window, self.reference.linear());
            next = self.feed(&nodes)?;
        }
        // Two branches of two after the last slot, and one from further back.
        let last = self.reference.slots() - 1;
        let parents = [last, last, last + 1, last + 2, last - 1];
        let tokens = [next, token(1), token(2), token(3), token(4)];
        let node = |(token, parent)| NewNode { token, parent: Some(parent) };
        self.feed(&tokens.into_iter().zip(parents).map(node).collect::<Vec<_>>())?;
        let path = [last + 2, last + 4];
        self.device.keep(last + 1, &path)?;
        self.reference.keep(last + 1, &path)?;
        let nodes = chain_nodes(&[next], self.reference.linear());
        self.feed(&nodes).map(drop)
    }

    /// `first`, and what the reference reads after it, `rows` tokens in all; the cache is as before.
    fn continuation(&mut self, first: TokenId, rows: usize) -> Result<Vec<TokenId>, ModelError> {
        let from = self.reference.linear();
        let mut window = vec![first];
        while window.len() < rows {
            let nodes = chain_nodes(&window[window.len() - 1..], self.reference.linear());
            window.push(best(self.reference.forward(&nodes, None)?.row(0)));
        }
        self.reference.keep(from, &[])?;
        Ok(window)
    }

    /// Feeds both, with all streams of the last row, and compares every row. What the reference reads next.
    fn feed(&mut self, nodes: &[NewNode]) -> Result<TokenId, ModelError> {
        let (from, streams) = ([nodes.len() - 1], self.reference.streams());
        let from = if streams > 0 { &from[..] } else { &[] };
        let theirs = self.device.look_ahead(nodes, from, streams)?;
        let ours = self.reference.look_ahead(nodes, from, streams)?;
        for i in 0..ours.rows() {
            let row = ours.row(i);
            let alike = row[best(theirs.row(i)) as usize] >= row[best(row) as usize] - NEAR;
            self.trial.alike += usize::from(alike);
        }
        self.trial.rows += ours.rows();
        Ok(best(ours.row(nodes.len() - 1)))
    }
}

fn best(row: &[f32]) -> TokenId {
    // NaN is never best, so that nonsense is not taken for a choice.
    let better = |best: (usize, f32), (i, &logit): (usize, &f32)| if logit > best.1 { (i, logit) } else { best };
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), better).0 as TokenId
}

/// A step of so many rows, microseconds: the middle one of several times.
fn step_us(model: &mut dyn LanguageModel, rows: usize) -> Result<f64, ModelError> {
    let tokens: Vec<TokenId> = (0..48 + rows).map(|i| (i * 37 % model.vocab_size()) as TokenId).collect();
    let context = 48.min(model.context_length() / 2);
    model.keep(0, &[])?;
    model.prefill(&tokens[..context])?;
    let begin = Instant::now();
    let mut took = Vec::new();
    // The first one warms up.
    while took.len() <= TIMES && (took.len() < 2 || begin.elapsed() < MOST) {
        let begin = Instant::now();
        model.forward(&chain_nodes(&tokens[context..context + rows], context), None)?;
        took.push(begin.elapsed().as_secs_f64() * 1e6);
        model.keep(context, &[])?;
    }
    let mut took = took.split_off(1);
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

/// What a process that tried a device prints: found among whatever libraries print of their own accord.
pub fn tell(found: &Result<Trial, String>) -> String {
    // A trial is numbers and text, which JSON has.
    format!("\n{}", serde_json::to_string(found).unwrap_or_default())
}

/// Runs the trial in a process, which [`tell`]s what it found on its standard output. It is killed when its time is up.
///
/// # Errors
/// Why the device cannot be used, or how the process ended.
pub fn in_a_process(mut command: Command, limit: Duration) -> Result<Trial, String> {
    let begin = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("the trial's process cannot be started: {error}"))?;
    let mut child = Tried(child);
    // Read while it runs: a full pipe would stop it.
    let words = [reader(child.0.stdout.take()), reader(child.0.stderr.take())];
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begin.elapsed() > limit => {
                return Err(format!("its trial was not done after {} s (--npu-time-limit)", limit.as_secs()));
            }
            Ok(None) => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(format!("the trial's process: {error}")),
        }
    };
    let [told, why] = words.map(|words| words.join().unwrap_or_default());
    let found = told.lines().rev().find_map(|line| serde_json::from_str(line).ok());
    found.unwrap_or_else(|| Err(ended(status, &why)))
}

/// Killed and buried when dropped.
struct Tried(Child);

impl Drop for Tried {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn reader(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // Half a message is better than none.
        let _ = from.map_or(Ok(0), |mut from| io::copy(&mut from, &mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn ended(status: ExitStatus, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let said: String = words.join(" ").chars().take(LAST_WORDS).collect();
    format!("its trial ended with {status}: {said}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(alike: usize, device: f64) -> Trial {
        Trial { rows: 200, alike, steps: vec![(1, device, 100.0), (8, device, 100.0)], ..Trial::default() }
    }

    #[test]
    fn devices_are_refused_for_other_tokens_and_for_slowness() {
        assert_eq!(trial(200, 99.0).refusal(false), None);
        assert_eq!(trial(196, 99.0).refusal(false), None);
        assert!(trial(195, 1.0).refusal(true).is_some_and(|why| why.contains("5 of 200 rows; at most 4")));
        assert!(trial(200, 101.0).refusal(false).is_some_and(|why| why.contains("slower") && why.contains("101 µs")));
        assert_eq!(trial(200, 101.0).refusal(true), None);
    }

    #[cfg(unix)]
    #[test]
    fn processes_that_hang_or_die_are_told_of() {
        let run = |script: &str, limit| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            in_a_process(command, Duration::from_millis(limit))
        };
        for found in [Ok(trial(200, 99.0)), Err("no device".to_owned())] {
            let told = tell(&found);
            assert_eq!(run(&format!("printf chatter; echo '{told}'; echo more"), 60_000), found);
        }
        assert!(run("sleep 60", 50).is_err_and(|why| why.contains("--npu-time-limit")));
        assert!(run("echo last words >&2; exit 1", 60_000).is_err_and(|why| why.contains("1: last words")));
        assert!(run("kill -SEGV $$", 60_000).is_err_and(|why| why.contains("signal")));
        assert!(run("echo nonsense", 60_000).is_err_and(|why| why.contains("ended")));
    }
}
