//! Devices by name, and which cores they are.

use std::str::FromStr;

use specula_models::{Accelerator, Compute, Cores, Latency, available_cores};
use specula_npu::Provider;

/// Where a model runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// `cpu`: the cores that the other model leaves to it.
    #[default]
    Cpu,
    /// `cpu:0-2,5`: these cores, as listed, each once.
    Cores(Vec<usize>),
    /// `cuda:0`, `metal`: a device, whose work one core hands out.
    On(Accelerator),
}

impl Device {
    /// Who computes there; `option` named it.
    ///
    /// # Errors
    /// What this build or this machine lacks.
    pub(crate) fn compute(&self, option: &str) -> anyhow::Result<Compute> {
        match self {
            Self::Cpu | Self::Cores(_) => Ok(Compute::Kernels),
            Self::On(accelerator) => match accelerator.lacks() {
                None => Ok(Compute::On(*accelerator)),
                Some(lacks) => anyhow::bail!("{option} {accelerator}: {lacks}"),
            },
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            Some(("cpu", list)) => parse_cores(list, &available_cores()).map(Self::Cores),
            _ => text.parse().map(Self::On).map_err(|_| {
                format!("there is no device `{text}`; there are cpu, cpu:0, cpu:0-3, cpu:0,2, cuda, cuda:1, metal")
            }),
        }
    }
}

/// Where a draft runs: on cores, or on an accelerator that a core drives; or on a simulated device, which is one of these
/// with a wait after every step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DraftDevice {
    pub(crate) device: Device,
    pub(crate) npu: Option<Provider>,
    pub(crate) latency: Option<Latency>,
}

impl FromStr for DraftDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(simulated) = text.strip_prefix("simulated:") {
            let Some((latency, device)) = simulated.split_once('@') else {
                return Err(format!("`{text}` does not say what it stands on: simulated:MILLISECONDS@cpu:1"));
            };
            if device.starts_with("simulated:") {
                return Err(format!("`{text}` is simulated twice"));
            }
            return Ok(Self { latency: Some(latency.parse()?), ..device.parse()? });
        }
        match text.strip_prefix("npu:") {
            Some(provider) => Ok(Self { npu: Some(provider.parse()?), ..Self::default() }),
            None => Ok(Self { device: text.parse()?, ..Self::default() }),
        }
    }
}

fn parse_cores(text: &str, available: &[usize]) -> Result<Vec<usize>, String> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| text.parse::<usize>().map_err(|_| format!("`{part}` is no core and no range of cores"));
        let (from, to) = (number(from)?, number(to)?);
        if from > to {
            return Err(format!("the range `{part}` runs backwards; write {to}-{from}"));
        }
        for core in from..=to {
            if !available.contains(&core) {
                return Err(format!(
                    "core {core} is not one that this process may use; it may use {}",
                    list(available)
                ));
            }
            if cores.contains(&core) {
                return Err(format!("core {core} is listed twice"));
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// Cores for people: `0-3,6`.
pub(crate) fn list(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    };
    runs.map(run).collect::<Vec<_>>().join(",")
}

/// Most cores that a target takes unless they are named: a pass meets at every product, which more threads make dearer.
const MOST_UNNAMED: usize = 8;

/// The cores of target and draft. Without names the draft has the last and the target the others, the last one too while no
/// draft works beside it; a target without a draft has all.
pub(crate) fn place(target: &Device, draft: Option<&Device>) -> (Cores, Cores) {
    place_on(&available_cores(), target, draft)
}

fn place_on(available: &[usize], target: &Device, draft: Option<&Device>) -> (Cores, Cores) {
    let beside = |taken: &[usize]| available.iter().copied().filter(|core| !taken.contains(core)).collect::<Vec<_>>();
    let drafts = match (draft, target) {
        (None, _) => Vec::new(),
        (Some(Device::Cores(cores)), _) => cores.clone(),
        (Some(Device::Cpu | Device::On(_)), Device::Cpu | Device::On(_)) => {
            available.last().copied().into_iter().collect()
        }
        (Some(Device::Cpu | Device::On(_)), Device::Cores(named)) => {
            beside(named).last().or(available.last()).copied().into_iter().collect()
        }
    };
    let target = match target {
        Device::Cores(cores) => Cores { own: cores.clone(), lent: Vec::new() },
        Device::On(_) => {
            let one = beside(&drafts).first().or(drafts.first()).copied();
            Cores { own: one.into_iter().collect(), lent: Vec::new() }
        }
        Device::Cpu => match beside(&drafts) {
            // All are the draft's: the two share them.
            own if own.is_empty() => Cores { own: drafts.clone(), lent: Vec::new() },
            mut own => {
                own.truncate(MOST_UNNAMED);
                Cores { own, lent: drafts.clone() }
            }
        },
    };
    (target, Cores { own: drafts, lent: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_refused_with_reasons() {
        let all: Vec<usize> = (0..8).collect();
        for (text, cores) in [("0", &[0][..]), ("0-3", &[0, 1, 2, 3]), ("0,2", &[0, 2]), ("6-7,1", &[6, 7, 1])] {
            assert_eq!(parse_cores(text, &all).as_deref(), Ok(cores));
        }
        for (text, reason) in [
            ("", "no core"),
            ("one", "no core"),
            ("1-", "no core"),
            ("-1", "no core"),
            ("3-1", "backwards; write 1-3"),
            ("0,0", "twice"),
            ("1-3,2", "core 2 is listed twice"),
            ("8", "core 8 is not one that this process may use; it may use 0-7"),
            ("0-99999999999999999999", "no core"),
        ] {
            let refused = parse_cores(text, &all).expect_err(text);
            assert!(refused.contains(reason), "{refused}");
        }
        assert!(parse_cores("1", &[0, 2]).expect_err("not there").contains("it may use 0,2"));
    }

    #[test]
    fn devices_are_parsed_and_others_refused() {
        let first = available_cores()[0];
        assert_eq!("cpu".parse(), Ok(Device::Cpu));
        assert_eq!(format!("cpu:{first}").parse(), Ok(Device::Cores(vec![first])));
        assert_eq!(list(&[0, 1, 2, 5, 7, 6]), "0-2,5,7,6");
        let simulated: DraftDevice = format!("simulated:2±0.5@cpu:{first}").parse().expect("valid");
        assert_eq!(simulated.device, Device::Cores(vec![first]));
        assert_eq!(simulated.latency, "2±0.5".parse().ok());
        assert_eq!("cpu".parse(), Ok(DraftDevice::default()));
        let npu = DraftDevice { npu: Some(Provider::Cpu), ..DraftDevice::default() };
        assert_eq!("npu:cpu".parse(), Ok(npu.clone()));
        assert_eq!("simulated:2@npu:cpu".parse(), Ok(DraftDevice { latency: "2".parse().ok(), ..npu }));
        for (name, reason) in [
            ("simulated:2", "stands on"),
            ("simulated:x@cpu", "`x`"),
            ("simulated:2@npu", "`npu`"),
            ("npu:x", "known: cpu"),
            ("simulated:1@simulated:1@cpu", "twice"),
        ] {
            assert!(name.parse::<DraftDevice>().is_err_and(|e| e.contains(reason)), "{name}");
        }
        assert_eq!("cuda:1".parse(), Ok(Device::On(Accelerator::Cuda(1))));
        for name in ["cuda:x", "rocm", "cpu0", ""] {
            assert!(name.parse::<Device>().is_err_and(|e| e.contains("there are cpu")), "{name}");
        }
    }

    #[test]
    fn both_models_have_cores_of_their_own() {
        let named = |cores: &[usize]| Device::Cores(cores.to_vec());
        let placed = |available: &[usize], target: &Device, draft: Option<&Device>| {
            let (target, draft) = place_on(available, target, draft);
            assert!(draft.lent.is_empty());
            (target.own, target.lent, draft.own)
        };
        let cpu = &Device::Cpu;
        assert_eq!(placed(&[0, 1], cpu, Some(cpu)), (vec![0], vec![1], vec![1]));
        assert_eq!(placed(&[4, 6, 7], cpu, Some(cpu)), (vec![4, 6], vec![7], vec![7]));
        assert_eq!(placed(&[0, 1], cpu, Some(&named(&[0, 1]))), (vec![0, 1], vec![], vec![0, 1]));
        assert_eq!(placed(&[0, 1], cpu, None), (vec![0, 1], vec![], vec![]));
        assert_eq!(placed(&[3], cpu, Some(cpu)), (vec![3], vec![], vec![3]));
        assert_eq!(placed(&[0, 1, 2, 3], cpu, Some(&named(&[0, 1]))), (vec![2, 3], vec![0, 1], vec![0, 1]));
        assert_eq!(placed(&[0, 1, 2, 3], &named(&[3, 2]), Some(cpu)), (vec![3, 2], vec![], vec![1]));
        assert_eq!(placed(&[0, 1], &named(&[0, 1]), Some(cpu)), (vec![0, 1], vec![], vec![1]));
        assert_eq!(placed(&[0, 1], &named(&[0]), Some(&named(&[0]))), (vec![0], vec![], vec![0]));
        let on = &Device::On(Accelerator::Cuda(0));
        assert_eq!(placed(&[0, 1, 2], on, Some(cpu)), (vec![0], vec![], vec![2]));
        assert_eq!(placed(&[0, 1, 2], on, Some(&named(&[0, 1]))), (vec![2], vec![], vec![0, 1]));
        assert_eq!(placed(&[0], on, Some(on)), (vec![0], vec![], vec![0]));
        let many: Vec<usize> = (0..64).collect();
        assert_eq!(placed(&many, cpu, Some(cpu)), ((0..8).collect(), vec![63], vec![63]));
    }
}
