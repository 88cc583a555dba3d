//! Drafts by OpenVINO on a CPU, where `SPECULA_ONNXRUNTIME_OPENVINO` names the library of PyPI's onnxruntime-openvino: its
//! NPU takes the same graphs, but needs Intel's driver.

mod common;

use common::{compare_draft, library, place};
use specula_npu::{Libraries, Provider, Variant};

#[test]
fn the_embedded_draft_chooses_the_same_tokens() {
    let Some(runtime) = library("SPECULA_ONNXRUNTIME_OPENVINO") else { return };
    let libraries = Libraries { runtime: Some(runtime), plugin: None };
    for variant in [Variant::F32, Variant::W8] {
        let cpu = Provider::OpenVino { device: "CPU".into() };
        let trial = compare_draft(place(cpu, Some(variant), libraries.clone())).expect("it runs");
        assert!(trial.rows > 200, "{trial:?}");
        assert_eq!(trial.refusal(true), None, "{} {trial:?}", variant.name());
    }
}
