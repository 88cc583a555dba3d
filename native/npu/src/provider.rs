//! Who runs a graph: ONNX Runtime's execution providers, by the names that people give them.

use std::fmt;
use std::str::FromStr;

use crate::variant::Variant;

/// An execution provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's own CPU kernels.
    Cpu,
    /// Intel's OpenVINO, on one of its devices.
    OpenVino {
        /// As OpenVINO names it: NPU, GPU, CPU.
        device: String,
    },
    /// Qualcomm's HTP. On x86-64 it is emulated.
    Qnn,
    /// Apple's Core ML, on the Neural Engine.
    CoreMl,
    /// AMD's Ryzen AI.
    VitisAi,
}

/// What [`Provider::from_str`] knows.
const KNOWN: &str = "cpu, openvino, openvino:DEVICE, qnn, coreml, vitisai";

impl Provider {
    /// One of each.
    pub fn all() -> [Self; 5] {
        [Self::Cpu, Self::OpenVino { device: "NPU".into() }, Self::Qnn, Self::CoreMl, Self::VitisAi]
    }

    /// As ONNX Runtime names it.
    pub fn full_name(&self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::OpenVino { .. } => "OpenVINOExecutionProvider",
            Self::Qnn => "QNNExecutionProvider",
            Self::CoreMl => "CoreMLExecutionProvider",
            Self::VitisAi => "VitisAIExecutionProvider",
        }
    }

    /// In which numbers a draft is given to it, unless told otherwise. Accelerators of 16 bits round f32 themselves; Qualcomm's
    /// HTP takes f16 as it is, half as much to carry over each step, and would leave weights in int8 to the CPU.
    pub fn variant(&self) -> Variant {
        match self {
            Self::OpenVino { .. } => Variant::W8,
            Self::Qnn => Variant::F16,
            Self::Cpu => Variant::Dyn8,
            Self::CoreMl | Self::VitisAi => Variant::F32,
        }
    }

    /// Where the provider comes from.
    pub fn how_to_get(&self) -> &'static str {
        match self {
            Self::Cpu => "pip install onnxruntime, 1.24 or newer; ORT_DYLIB_PATH = its capi/libonnxruntime.so.*",
            Self::OpenVino { .. } => {
                "pip install onnxruntime-openvino, 1.24 or newer; ORT_DYLIB_PATH = its capi/libonnxruntime.so.*; an NPU needs \
                 Intel's driver besides"
            }
            Self::Qnn => {
                "pip install onnxruntime onnxruntime-qnn, 2.7 or newer; --npu-plugin = its libonnxruntime_providers_qnn.so"
            }
            Self::CoreMl => "macOS: pip install onnxruntime; ORT_DYLIB_PATH = its capi/libonnxruntime.*.dylib",
            Self::VitisAi => "AMD's Ryzen AI software, whose onnxruntime ORT_DYLIB_PATH must name",
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".,:".contains(c);
        match text.split_once(':').unwrap_or((text, "")) {
            ("cpu", "") => Ok(Self::Cpu),
            ("openvino", "") => Ok(Self::OpenVino { device: "NPU".into() }),
            ("openvino", device) if device.chars().all(plain) => Ok(Self::OpenVino { device: device.into() }),
            ("qnn", "") => Ok(Self::Qnn),
            ("coreml", "") => Ok(Self::CoreMl),
            ("vitisai", "") => Ok(Self::VitisAi),
            _ => Err(format!("no provider `{text}`; known: {KNOWN}")),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::OpenVino { device } => return write!(f, "openvino:{device}"),
            Self::Qnn => "qnn",
            Self::CoreMl => "coreml",
            Self::VitisAi => "vitisai",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_read_and_written_alike() {
        for provider in Provider::all() {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        assert_eq!("openvino".parse(), Ok(Provider::OpenVino { device: "NPU".into() }));
        assert_eq!("openvino:HETERO:NPU,CPU".parse(), Ok(Provider::OpenVino { device: "HETERO:NPU,CPU".into() }));
        for bad in ["", "npu", "cpu:0", "openvino:\0", "qnn:htp"] {
            assert!(bad.parse::<Provider>().is_err_and(|why| why.contains("known: cpu")), "{bad:?}");
        }
    }
}
