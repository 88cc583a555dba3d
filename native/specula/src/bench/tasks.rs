//! Speedups by task, as Spec-Bench's table has them.

use serde::Serialize;

use super::answer::Answer;
use super::bootstrap;
use super::measured::Measured;

/// An entrant's speedups at one temperature.
#[derive(Debug, Serialize)]
pub(crate) struct TaskLine {
    pub(crate) temperature: f64,
    pub(crate) method: String,
    pub(crate) draft: String,
    /// Task, ratio of mean speeds (this / `none`) and tokens per pass, in the order of the questions.
    pub(crate) tasks: Vec<Task>,
}

/// An entrant at one task.
#[derive(Debug, Serialize)]
pub(crate) struct Task {
    pub(crate) task: String,
    pub(crate) speedup: f64,
    pub(crate) acceptance_length: f64,
}

pub(crate) fn lines(measured: &Measured<'_>) -> Vec<TaskLine> {
    let plan = measured.plan;
    let mut tasks: Vec<&str> = Vec::new();
    for question in &plan.questions {
        if !tasks.contains(&question.task()) {
            tasks.push(question.task());
        }
    }
    let task = |task: &str, entrant: usize, temperature: usize| {
        let at = |answer: &&Answer| plan.questions[answer.question].task() == task;
        let speeds = |entrant| measured.of(entrant, temperature).filter(at).map(Answer::speed);
        let pairs: Vec<(f64, f64)> = speeds(entrant).zip(speeds(0)).collect();
        let mut sums = specula_engine::Totals::default();
        measured.of(entrant, temperature).filter(at).for_each(|answer| sums += &answer.totals());
        Task {
            task: task.to_owned(),
            speedup: bootstrap::ratio_of_means(&pairs),
            acceptance_length: sums.acceptance_length().unwrap_or(1.0),
        }
    };
    let line = |entrant: usize, temperature: usize| TaskLine {
        temperature: plan.temperatures[temperature],
        method: measured.contender(entrant).name.clone(),
        draft: measured.draft(entrant),
        tasks: tasks.iter().map(|name| task(name, entrant, temperature)).collect(),
    };
    (0..plan.temperatures.len())
        .flat_map(|t| (0..plan.entrants.len()).map(move |e| (e, t)))
        .map(|(e, t)| line(e, t))
        .collect()
}
