//! The suite's results: as a table, as lines of JSON, and against what is asked of the kernels.

use std::fmt::Write as _;

use serde_json::json;

use super::contender::ONNX;
use super::limits::Limits;
use super::random::{Format, multiplied};
use super::{CONTEXT, Measurement, Subject, Task, lanes};

pub(super) struct Summary {
    pub(super) subjects: Vec<Subject>,
    pub(super) measured: Vec<Measurement>,
    pub(super) limits: Limits,
    /// Of each subject: bytes a second when as many as it has are read again and again.
    pub(super) again: Vec<f64>,
    /// What else ran when the run began, as the system says.
    pub(super) load: Option<String>,
    pub(super) rounds: u16,
}

/// A figure and what it should be at most.
struct Goal {
    what: String,
    found: f64,
    most: Option<f64>,
}

impl Summary {
    fn of(&self, subject: usize, task: Task, contender: &str) -> Option<f64> {
        let found = |m: &&Measurement| m.subject == subject && m.task == task && m.contender == contender;
        self.measured.iter().find(found).map(Measurement::median)
    }

    /// Bytes of weights that a pass reads and operations that it does, attention not counted.
    fn amounts(&self, m: &Measurement) -> (f64, f64) {
        let subject = &self.subjects[m.subject];
        let weights = multiplied(&subject.config);
        let (Task::Rows(rows) | Task::Prompt(rows)) = m.task;
        (subject.format.bytes(weights) as f64, (2 * weights * rows) as f64)
    }

    pub(super) fn lines(&self) -> String {
        let line = |m: &Measurement| {
            let (bytes, operations) = self.amounts(m);
            json!({
                "model": self.subjects[m.subject].name,
                "task": m.task.name(),
                "contender": m.contender,
                "median_ms": m.median() * 1e3,
                "rounds_ms": m.seconds.iter().map(|s| s * 1e3).collect::<Vec<_>>(),
                "gigabytes_per_second": bytes / m.median() / 1e9,
                "gigaoperations_per_second": operations / m.median() / 1e9,
            })
        };
        self.measured.iter().map(|m| format!("{}\n", line(m))).collect()
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        let giga = |x: f64| format!("{:.1}", x / 1e9);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "One thread, {}: reads {} GB/s from memory, {} GOP/s in int8, {} GOP/s in f32. Medians of {} rounds; rows \
             behind {CONTEXT} tokens.{}\n",
            self.limits.isa,
            giga(self.limits.read),
            self.limits.int8.map_or("-".into(), giga),
            giga(self.limits.f32),
            self.rounds,
            self.load.as_ref().map_or(String::new(), |load| format!(" Load before the run: {}.", load.trim())),
        );
        out.push_str("| model | task | kernels ms | GB/s | GOP/s | candle ms | llama.cpp ms | kernels / candle | kernels / llama.cpp |\n|---|---|---|---|---|---|---|---|---|\n");
        for m in self.measured.iter().filter(|m| m.contender == "kernels") {
            let (bytes, operations) = self.amounts(m);
            let ms = |contender| self.of(m.subject, m.task, contender);
            let shown = |seconds: Option<f64>| seconds.map_or("-".into(), |s| format!("{:.3}", s * 1e3));
            let ratio = |seconds: Option<f64>| seconds.map_or("-".into(), |s| format!("{:.2}", m.median() / s));
            let _ = writeln!(
                out,
                "| {} | {} | {:.3} | {} | {} | {} | {} | {} | {} |",
                self.subjects[m.subject].name,
                m.task.name(),
                m.median() * 1e3,
                giga(bytes / m.median()),
                giga(operations / m.median()),
                shown(ms("candle")),
                shown(ms("llama.cpp")),
                ratio(ms("candle")),
                ratio(ms("llama.cpp")),
            );
        }
        for (_, name) in ONNX {
            self.comparison(&mut out, [name, "kernels"], "kernels / ONNX Runtime", |onnx, kernels| kernels / onnx);
        }
        self.comparison(&mut out, [lanes::ONE_CORE, lanes::ALL_CORES], "speed-up", |one, all| one / all);
        self.comparison(&mut out, [lanes::ALONE, lanes::BESIDE], "beside / alone", |alone, beside| beside / alone);
        out.push_str("\n| figure | found | at most | |\n|---|---|---|---|\n");
        for Goal { what, found, most } in self.goals() {
            let (most, met) = match most {
                None => ("-".into(), "-"),
                Some(most) => (most.to_string(), if found <= most { "met" } else { "missed" }),
            };
            let _ = writeln!(out, "| {what} | {found:.2} | {most} | {met} |");
        }
        out
    }

    /// A table of what was measured in two ways, if anything was.
    fn comparison(&self, out: &mut String, ways: [&str; 2], ratio: &str, of: impl Fn(f64, f64) -> f64) {
        let [first, second] = ways;
        let mut compared = self.measured.iter().filter(|m| m.contender == first).peekable();
        if compared.peek().is_some() {
            let _ = writeln!(out, "\n| model | task | {first} ms | {second} ms | {ratio} |\n|---|---|---|---|---|");
        }
        for m in compared {
            if let Some(seconds) = self.of(m.subject, m.task, second) {
                let (name, task) = (&self.subjects[m.subject].name, m.task.name());
                let (first, ratio) = (m.median(), of(m.median(), seconds));
                let _ = writeln!(out, "| {name} | {task} | {:.3} | {:.3} | {ratio:.2} |", first * 1e3, seconds * 1e3);
            }
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for (index, subject) in self.subjects.iter().enumerate() {
            let kernels = |task| self.of(index, task, "kernels").unwrap_or(f64::NAN);
            let mut add = |what: &str, found, most| {
                goals.push(Goal { what: format!("{}: {what}", subject.name), found, most });
            };
            // What the kernels must reach for speculation to pay; f32 is only told.
            let wanted = |most| (subject.format == Format::Q8).then_some(most);
            for (task, most) in [(Task::Rows(1), 0.9), (Task::Rows(8), 0.45), (Task::Prompt(512), 0.8)] {
                if let Some(llama) = self.of(index, task, "llama.cpp") {
                    add(&format!("{}, kernels / llama.cpp", task.name()), kernels(task) / llama, wanted(most));
                }
            }
            let weights = subject.format.bytes(multiplied(&subject.config)) as f64;
            // Weights that the caches may hold are not bound by memory.
            let far = |most| wanted(most).filter(|_| weights > 64e6);
            add("8 rows / 1 row", kernels(Task::Rows(8)) / kernels(Task::Rows(1)), far(1.8));
            add("1 row / reading its weights", kernels(Task::Rows(1)) * self.limits.read / weights, far(1.3));
            let again = kernels(Task::Rows(1)) * self.again[index] / weights;
            add("1 row / reading its weights from the caches that hold them", again, None);
            for m in self.measured.iter().filter(|m| m.subject == index && m.contender == lanes::BESIDE) {
                if let Some(alone) = self.of(index, m.task, lanes::ALONE) {
                    add(&format!("{}, beside the other model / alone", m.task.name()), m.median() / alone, Some(1.15));
                }
            }
            if weights < 4e6 {
                add("1 row, µs", kernels(Task::Rows(1)) * 1e6, Some(60.0));
                add("8 rows, µs", kernels(Task::Rows(8)) * 1e6, Some(260.0));
            }
        }
        goals
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::random::config_110m;
    use super::*;

    #[test]
    fn ratios_are_of_medians_and_goals_are_judged() {
        let subject =
            Subject { name: "110M Q8_0".into(), path: PathBuf::new(), config: config_110m(), format: Format::Q8 };
        let measured = |contender, task, ms: &[f64]| Measurement {
            subject: 0,
            task,
            contender,
            seconds: ms.iter().map(|ms| ms / 1e3).collect(),
        };
        let weights = Format::Q8.bytes(multiplied(&subject.config)) as f64;
        let summary = Summary {
            subjects: vec![subject],
            measured: vec![
                measured("kernels", Task::Rows(1), &[6.0, 90.0, 5.0]),
                measured("llama.cpp", Task::Rows(1), &[12.0, 12.0, 12.0]),
                measured("kernels", Task::Rows(8), &[12.0, 12.0, 12.0]),
                measured(lanes::ONE_CORE, Task::Rows(8), &[12.0]),
                measured(lanes::ALL_CORES, Task::Rows(8), &[8.0]),
                measured(lanes::ALONE, Task::Rows(8), &[10.0]),
                measured(lanes::BESIDE, Task::Rows(8), &[11.0]),
            ],
            // Reading the weights takes 5 ms.
            limits: Limits { isa: "any", read: weights / 5e-3, int8: None, f32: 1e11 },
            again: vec![weights / 3e-3],
            load: None,
            rounds: 3,
        };
        let table = summary.markdown();
        for line in [
            "| 110M Q8_0 | 1 rows | 6.000 | 19.4 | 36.5 | - | 12.000 | - | 0.50 |",
            "| 110M Q8_0: 1 rows, kernels / llama.cpp | 0.50 | 0.9 | met |",
            "| 110M Q8_0 | 8 rows | 12.000 | 8.000 | 1.50 |",
            "| 110M Q8_0 | 8 rows | 10.000 | 11.000 | 1.10 |",
            "| 110M Q8_0: 8 rows, beside the other model / alone | 1.10 | 1.15 | met |",
            "| 110M Q8_0: 8 rows / 1 row | 2.00 | 1.8 | missed |",
            "| 110M Q8_0: 1 row / reading its weights | 1.20 | 1.3 | met |",
            "| 110M Q8_0: 1 row / reading its weights from the caches that hold them | 2.00 | - | - |",
        ] {
            assert!(table.contains(line), "{line} in {table}");
        }
        let lines: Vec<serde_json::Value> =
            summary.lines().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[0]["median_ms"], 6.0);
        assert_eq!(lines[0]["rounds_ms"], serde_json::json!([6.0, 90.0, 5.0]));
    }
}
