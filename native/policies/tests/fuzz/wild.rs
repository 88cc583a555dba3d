//! Guests whose functions do things at random: well-typed, so that they run, and with every function of the host called with
//! every kind of argument. Small enough to be read when one finds something.

use crate::common;

/// Functions of the host with their parameters: `r`ow, `p`ointer, `l`ength, `n`umber, `f`loat.
const ROWS: [(&str, &str); 12] = [
    ("top", "rnp"),
    ("probs-at", "rplp"),
    ("summary", "rp"),
    ("bias", "rplpl"),
    ("bias-mask", "rplf"),
    ("forbid", "rpl"),
    ("allow", "rpl"),
    ("scale", "rf"),
    ("keep-top-k", "rn"),
    ("keep-top-p", "rf"),
    ("keep-min-p", "rf"),
    ("keep-from", "rf"),
];
const CONTEXT: [(&str, &str); 3] = [("history", "nnp"), ("token-bytes", "plp"), ("log", "pl")];
const READS: [&str; 2] = ["length", "prompt-length"];

type Random<'a> = &'a mut dyn FnMut() -> u64;

/// Well-formed guests, with their kinds.
const TEMPLATES: [(&str, &str); 3] =
    [("well-behaved", "acceptance"), ("scale-zero", "sampling"), ("keeps-none", "stopping")];

/// A guest of any kind, and its kind.
pub(crate) fn any(random: Random<'_>) -> (String, &'static str) {
    let (template, kind) = TEMPLATES[random() as usize % TEMPLATES.len()];
    (guest(&common::guest_text(template), kind, random), kind)
}

/// A guest of `kind` made from a well-formed one: its functions do something at random before they do what they did.
fn guest(template: &str, kind: &str, random: Random<'_>) -> String {
    let rows: &[(&str, &str)] = if kind == "sampling" { &ROWS } else { &[] };
    let mut text = String::new();
    for line in template.lines().filter(|line| !line.contains("specula:policy/rows@")) {
        // What the template itself does to rows goes, with its import.
        if line.trim_start().starts_with("(call $scale") {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        if line.starts_with("(module") {
            imports(&mut text, rows);
        }
        let ours = line.contains("@0.1.0#") && !line.contains("[constructor]") && !line.contains("fork");
        if ours || (line.contains("[constructor]") && random().is_multiple_of(8)) {
            let parameters = line.matches("i32").count().saturating_sub(1);
            let mut body = Body { rows, parameters, random };
            for _ in 0..body.below(4) {
                let statement = body.statement(4);
                text.push_str(&format!("    {statement}\n"));
            }
        }
    }
    text
}

fn imports(text: &mut String, rows: &[(&str, &str)]) {
    for (interface, functions) in [("rows", rows), ("context", &CONTEXT[..])] {
        for (name, parameters) in functions {
            let types: Vec<&str> = parameters.chars().map(|p| if p == 'f' { "f32" } else { "i32" }).collect();
            let types = types.join(" ");
            text.push_str(&format!(
                "  (import \"specula:policy/{interface}@0.1.0\" \"{name}\" (func ${name} (param {types})))\n"
            ));
        }
    }
    for name in READS {
        text.push_str(&format!("  (import \"specula:policy/context@0.1.0\" \"{name}\" (func ${name} (result i32)))\n"));
    }
}

/// A function being written.
struct Body<'a> {
    rows: &'a [(&'a str, &'a str)],
    parameters: usize,
    random: Random<'a>,
}

impl Body<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        (self.random)() % bound
    }

    fn one_of<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn statement(&mut self, depth: u32) -> String {
        if depth == 0 {
            return "(nop)".to_owned();
        }
        match self.below(16) {
            0..8 => self.host_call(depth),
            8..10 => {
                let store = self.one_of(&["i32.store", "i32.store8", "i32.store16"]);
                format!("({store} {} {})", self.address(), self.number(depth - 1))
            }
            10 => format!("(f32.store {} {})", self.address(), self.float()),
            11 => format!("(if {} (then {} {}))", self.number(1), self.statement(depth - 1), self.statement(depth - 1)),
            12 => format!("(loop {} (br_if 0 {}))", self.statement(depth - 1), self.number(depth - 1)),
            13 => {
                let bulk = self.one_of(&["memory.fill", "memory.copy"]);
                format!("({bulk} {} {} {})", self.address(), self.number(1), self.length())
            }
            14 => format!("(drop (memory.grow {}))", self.number(1)),
            _ if self.below(8) == 0 => "unreachable".to_owned(),
            _ => format!("(drop {})", self.number(depth)),
        }
    }

    fn host_call(&mut self, depth: u32) -> String {
        let all = self.rows.len() + CONTEXT.len();
        let which = self.below(all as u64) as usize;
        let (name, parameters) = *self.rows.get(which).unwrap_or_else(|| &CONTEXT[which - self.rows.len()]);
        let arguments: Vec<String> = parameters
            .chars()
            .map(|parameter| match parameter {
                'f' => self.float(),
                'p' => self.address(),
                'l' => self.length(),
                'r' => self.row(),
                _ => self.number(depth - 1),
            })
            .collect();
        format!("(call ${name} {})", arguments.join(" "))
    }

    /// An expression of type i32.
    fn number(&mut self, depth: u32) -> String {
        let leaf = depth == 0;
        match self.below(if leaf { 4 } else { 8 }) {
            0 => format!("(i32.const {})", self.one_of(&["0", "1", "2", "7", "63", "64", "4096", "-1", "2147483647"])),
            1 => format!("(i32.const {})", self.below(1 << 32)),
            2 if self.parameters > 0 => format!("(local.get {})", self.below(self.parameters as u64)),
            2 | 3 => format!("(call ${})", self.one_of(&READS)),
            4 => format!("(i32.load {})", self.address()),
            5 => format!("(i32.trunc_f32_s {})", self.float()),
            _ => {
                let operator = self.one_of(&["add", "sub", "mul", "div_u", "rem_s", "and", "xor", "shl", "lt_u", "eq"]);
                format!("(i32.{operator} {} {})", self.number(depth - 1), self.number(depth - 1))
            }
        }
    }

    /// Mostly a place that there is.
    fn address(&mut self) -> String {
        if self.below(16) == 0 { self.number(0) } else { format!("(i32.const {})", self.below(1 << 15) * 4) }
    }

    /// Mostly short.
    fn length(&mut self) -> String {
        if self.below(16) == 0 { self.number(0) } else { format!("(i32.const {})", self.below(12)) }
    }

    /// Mostly one that there is.
    fn row(&mut self) -> String {
        if self.below(16) == 0 { self.number(0) } else { format!("(i32.const {})", self.below(3)) }
    }

    fn float(&mut self) -> String {
        let special = ["nan", "inf", "-inf", "0", "-0", "1", "0.5", "2", "1e-40", "3.4e38", "-3.4e38", "0.05"];
        format!("(f32.const {})", self.one_of(&special))
    }
}
