//! In which numbers a draft is written: which provider wants which was measured or is documented by its maker.

use serde::Serialize;

/// The format of a graph's weights and of the sums over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// All in f32: what every provider takes; accelerators of 16 bits round it themselves.
    F32,
    /// Matrices, keys and values in f16; norms, positions and probabilities in f32.
    F16,
    /// Matrices in int8, one scale for each output, made f32 before they are multiplied: OpenVINO's kernels take them as
    /// they are.
    W8,
    /// Matrices in int8 and activations rounded to 8 bits as they come, one scale for all rows of a pass: ONNX Runtime's own
    /// CPU kernels are fastest so. What a row gives depends on the rows beside it.
    Dyn8,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::W8, Self::Dyn8];

    /// `f32`, `f16`, `w8`, `dyn8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::W8 => "w8",
            Self::Dyn8 => "dyn8",
        }
    }

    /// The variant of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }
}
