//! `specula calibrate`: what passes, steps and messages cost here, and which settings follow.

use anyhow::Result;
use specula_engine::{ByRows, Method, Plan, Reckoned};

use crate::options::EngineArgs;
use crate::{coverage, startup};

/// Alternatives told of each method.
const TOLD: usize = 3;

pub(crate) fn run(args: &EngineArgs) -> Result<()> {
    let pair = startup::pair(args)?;
    let coverage = coverage::read(args, &pair.0)?;
    let engine = startup::engine_without_plugins_of(args, pair)?;
    let plan = engine.plan();
    println!("Costs, microseconds by rows:");
    costs("target alone", &plan.costs.alone);
    costs("beside a draft", &plan.costs.beside);
    costs("with an exit", &plan.costs.with_exit);
    costs("draft's step", &plan.costs.step);
    println!("  rendezvous       {:.1}", plan.costs.rendezvous_us);
    if let Some(coverage) = coverage {
        let layers = coverage.iter().map(|(layer, part)| format!("{layer}: {:.1} %", 100.0 * part));
        println!("Exits by layer, how often the target's token is among their four best:");
        println!("  {}", layers.collect::<Vec<_>>().join(", "));
    }
    println!("Settings, with the tokens a second that these costs let expect, before any acceptance is known:");
    for method in Method::ALL {
        let of_method = plan.considered.iter().filter(|reckoned| reckoned.settings.method == method);
        for (place, reckoned) in of_method.take(TOLD).enumerate() {
            println!("  {} {}", if place == 0 { "*" } else { " " }, line(reckoned));
        }
    }
    println!("* is what the method begins with. `auto` tries, and keeps to what it measures to be fastest:");
    println!("  {}", plan.arms.iter().map(name).collect::<Vec<_>>().join(", "));
    told_refusal(plan);
    Ok(())
}

fn told_refusal(plan: &Plan) {
    if let Some(why) = &plan.refused {
        println!("The draft is not among them: {why}.");
    }
}

fn costs(what: &str, costs: &ByRows) {
    let measured: Vec<String> = costs.measured().map(|(rows, us)| format!("{rows}: {us:.0}")).collect();
    println!("  {what:<16} {}", if measured.is_empty() { "-".to_owned() } else { measured.join(", ") });
}

fn line(reckoned: &Reckoned) -> String {
    format!("{:<44} {:>8.1} tokens/s", name(reckoned), reckoned.tokens_per_second)
}

/// As `bench --methods` takes it.
fn name(reckoned: &Reckoned) -> String {
    let s = reckoned.settings;
    let mut name = s.method.name().to_owned();
    if s.method != Method::None {
        name += &format!(":window={}", s.window);
    }
    if s.method == Method::Mirror {
        name += &format!(":exit_layer={}", s.exit_layer);
    }
    if s.method.rolls_out() || s.method == Method::Recycling {
        name += &format!(":branch_budget={}", s.branch_budget);
    }
    name
}
