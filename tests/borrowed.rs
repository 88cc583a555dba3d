//! A model that candle-transformers computes, through the whole host: answers by the method `none`, with rules and plugins;
//! whatever else is refused with the reason.

use serde_json::{Value, json};
use specula_protocol::ModelList;
use specula_tests::{Folder, Server, TEXT, refused, tiny_model, with};

fn folder(architecture: &str) -> Folder {
    let folder = Folder::new();
    for (name, content) in tiny_model(architecture) {
        folder.write(name, &content);
    }
    folder
}

fn asking() -> Value {
    json!({"prompt": "x", "seed": 5, "max_tokens": 24, "temperature": 1.0})
}

#[tokio::test]
async fn it_answers_alone_with_rules_and_plugins() {
    let phi = folder("phi3");
    let server = Server::start(&["--target", phi.text()]);
    let list: ModelList = serde_json::from_value(server.get("/v1/models").await.json()).expect("a list of models");
    let card = &list.data[0];
    assert_eq!((card.methods.as_slice(), &*card.default_method), (&["none".to_owned()][..], "none"));
    let why = card.cannot_speculate.as_deref().expect("a reason");
    assert!(why.contains("`phi3`") && why.contains("cut back"), "{why}");

    let drawn = server.whole(TEXT, &asking()).await;
    assert_eq!(drawn.report.settings.method, "none");
    assert!(drawn.report.lossless && drawn.report.row_invariant);
    assert_eq!(server.whole(TEXT, &asking()).await.text, drawn.text, "the same draws with the same seed");
    let other = server.whole(TEXT, &with(&asking(), json!({"seed": 6}))).await;
    assert_ne!(other.text, drawn.text);
    let sure = server.whole(TEXT, &with(&asking(), json!({"logit_bias": {"97": 100}, "max_tokens": 5}))).await;
    assert_eq!(sure.text, "aaaaa");
    let stopped = server.whole(TEXT, &with(&asking(), json!({"logit_bias": {"97": 100}, "stop": ["aaa"]}))).await;
    assert_eq!((&*stopped.text, &*stopped.finish_reason), ("", "stop"));
    let digits = json!({"plugins": [{"name": "regex", "config": {"pattern": "[0-9]{4}-[0-9]{2}"}}]});
    let dated = server.whole(TEXT, &with(&asking(), digits)).await.text;
    let shape: String = dated.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00");

    let asked = with(&asking(), json!({"speculation": {"method": "mirror"}}));
    let reply = server.post(TEXT, &asked).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains(why), "{}", reply.text());
}

#[test]
fn what_it_cannot_do_is_refused_at_the_start() {
    let (phi, llama) = (folder("phi3"), folder("llama"));
    for (args, part) in [
        (["--target", phi.text(), "--method", "mirror"], "has `none` alone"),
        (["--target", phi.text(), "--draft", llama.text()], "leave --draft out"),
        (["--target", llama.text(), "--draft", phi.text()], "cannot draft"),
    ] {
        let said = refused(&[&args[..], &["--text", "x"]].concat());
        assert!(said.contains(part) && said.contains("`phi3` models"), "{said}");
    }
}
