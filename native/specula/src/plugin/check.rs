//! `specula plugin check`: the examination of an upload, on this machine.

use anyhow::{Context, Result, bail};
use specula_protocol::PluginReport;
use specula_server::wire;

use super::{FileArgs, workshop};

pub(super) fn run(args: &FileArgs) -> Result<()> {
    let config = args.config()?;
    if !args.file.is_file() {
        bail!("{}: no such file", args.file.display());
    }
    let draft = std::env::temp_dir().join(format!("specula-check-{}", std::process::id()));
    let examined = workshop()?.examine(&args.file, &draft, (args.limits, &config));
    let examined = examined.with_context(|| format!("{} would be refused", args.file.display()))?;
    let kinds: Vec<&str> = examined.facts.kinds.iter().map(|kind| kind.as_str()).collect();
    let report = wire::plugin_report(examined.facts.clone());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{} passes: {}", args.file.display(), kinds.join(", "));
    print!("{}", told(&report));
    Ok(())
}

/// A report in lines.
pub(super) fn told(report: &PluginReport) -> String {
    let mut lines = vec![
        format!("interfaces   {}", report.interfaces.join(", ")),
        format!("code         {} bytes, compiled in {} ms", report.code_bytes, report.compile_ms),
    ];
    for cost in &report.costs {
        lines.push(format!(
            "{:<12} {} {}: fuel {} (at most {}), {:.1} µs",
            if lines.len() == 2 { "cost" } else { "" },
            cost.kind,
            cost.function,
            cost.fuel,
            cost.fuel_max,
            cost.micros
        ));
    }
    if let Some(stamp) = &report.stamp {
        lines.push(format!(
            "stamp        {}: {:.2} % of {} tokens were not the target's own draw; total variation {:.4}",
            stamp.stamp,
            stamp.deviation * 100.0,
            stamp.tokens,
            stamp.total_variation
        ));
    }
    lines.join("\n") + "\n"
}
