//! What is asked: the validation prompts, or a file of questions as Spec-Bench has them (arXiv:2401.07851).

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::prompts;

/// Questions of one conversation, asked one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Question {
    #[serde(rename = "question_id")]
    pub(crate) id: u64,
    /// What kind of task it is.
    pub(crate) category: String,
    /// The user's messages.
    pub(crate) turns: Vec<String>,
}

impl Question {
    /// Spec-Bench's task: it counts MT-bench's eight categories as one.
    pub(crate) fn task(&self) -> &str {
        const MT_BENCH: [&str; 8] =
            ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];
        if MT_BENCH.contains(&self.category.as_str()) { "mt_bench" } else { &self.category }
    }
}

/// `count` questions about validation pages, spread evenly, of short and long answers in turn.
pub(crate) fn embedded(count: usize) -> Result<Vec<Question>> {
    let asked = prompts::questions(count)?.into_iter().enumerate();
    let category = |i: usize| if i.is_multiple_of(2) { "short" } else { "long" };
    Ok(asked
        .map(|(i, (_, text))| Question { id: i as u64, category: category(i).to_owned(), turns: vec![text] })
        .collect())
}

/// `count` questions of a file, spread evenly over it; all of them if `count` is `None` or more than there are.
pub(crate) fn spec_bench(file: &Path, count: Option<usize>) -> Result<Vec<Question>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--suite spec-bench {}", file.display()))?;
    let read = read(&text).with_context(|| format!("--suite spec-bench {}", file.display()))?;
    let (all, count) = (read.len(), count.unwrap_or(read.len()).min(read.len()));
    Ok((0..count).map(|i| read[i * all / count].clone()).collect())
}

fn read(text: &str) -> Result<Vec<Question>> {
    let mut questions: Vec<Question> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let question: Question = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        if question.turns.is_empty() {
            bail!("line {}: `turns` holds no question", number + 1);
        }
        questions.push(question);
    }
    if questions.is_empty() {
        bail!("the file holds no question");
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."], "reference": []}
{"question_id": 401, "category": "qa", "turns": ["Who?"]}
"#;

    #[test]
    fn files_of_spec_bench_are_read() {
        let read = read(FILE).expect("questions");
        assert_eq!((read[0].id, read[0].turns.len(), read[0].task()), (81, 2, "mt_bench"));
        assert_eq!((read[1].id, read[1].task()), (401, "qa"));
    }

    #[test]
    fn broken_files_are_refused_by_line() {
        for (text, named) in [
            ("", "no question"),
            (r#"{"question_id": 1, "category": "qa", "turns": []}"#, "line 1: `turns`"),
            ("{\"question_id\": 1, \"category\": \"qa\", \"turns\": [\"x\"]}\n{\"category\": \"qa\"}", "line 2"),
        ] {
            let error = read(text).expect_err("broken");
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }

    #[test]
    fn embedded_questions_are_spread_and_of_both_kinds() {
        let questions = embedded(4).expect("questions");
        let categories: Vec<&str> = questions.iter().map(Question::task).collect();
        assert_eq!(categories, ["short", "long", "short", "long"]);
    }
}
