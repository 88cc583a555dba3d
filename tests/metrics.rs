//! What the server says of itself: counters that add up to the answers it gave, health, the model, the page.

use reqwest::Method;
use serde_json::json;
use specula_protocol::{ModelList, Report};
use specula_tests::{Answer, CHAT, METHODS, Server, bans_the_end, question, until, with};

/// A counter by method, and what a report says of it.
type Counter = (&'static str, fn(&Report) -> u64);

const COUNTERS: [Counter; 12] = [
    ("specula_rounds_total", |r| r.rounds),
    ("specula_drafted_tokens_total", |r| r.drafted),
    ("specula_accepted_tokens_total", |r| r.accepted),
    ("specula_deviations_total", |r| r.deviations),
    ("specula_hits_total", |r| r.hits),
    ("specula_misses_total", |r| r.misses),
    ("specula_hits_from_draft_total", |r| r.hits_from_draft),
    ("specula_hits_from_exit_total", |r| r.hits_from_exit),
    ("specula_branches_expanded_total", |r| r.branches_expanded),
    ("specula_branches_used_total", |r| r.branches_used),
    ("specula_hits_by_depth_total", |r| r.hits_by_depth.iter().sum()),
    ("specula_hits_from_exit_by_depth_total", |r| r.hits_from_exit_by_depth.iter().sum()),
];

#[tokio::test]
async fn counters_are_the_sums_of_the_answers_reports() {
    let server = Server::start(&[]);
    let mut answers = Vec::new();
    for (i, method) in METHODS.iter().enumerate() {
        let request = with(&question(i), json!({"speculation": {"method": method}}));
        answers.push(server.whole(CHAT, &request).await);
        let counted = with(&request, json!({"temperature": 1.0, "stream_options": {"include_usage": true}}));
        answers.push(server.streamed(CHAT, &counted).await.answer);
        answers.push(server.socket().await.answer(&with(&request, json!({"plugins": [{"name": "min-p"}]}))).await);
    }
    let typical = json!({"temperature": 1.0, "plugins": [{"name": "typical"}], "speculation": {"method": "sps"}});
    answers.push(server.whole(CHAT, &with(&question(0), typical)).await);
    answers.push(cancelled(&server).await);
    assert_eq!(server.post(CHAT, &json!({})).await.status, 400);
    until("the last to be counted", async || server.metrics().await.ended("cancelled") == 1.0).await;

    let metrics = server.metrics().await;
    for method in METHODS {
        let of_method = || answers.iter().filter(|answer| answer.report.settings.method == method);
        for (family, value) in COUNTERS {
            let sum: u64 = of_method().map(|answer| value(&answer.report)).sum();
            let counted = match family {
                "specula_hits_by_depth_total" | "specula_hits_from_exit_by_depth_total" => {
                    metrics.sum(family, &format!("method=\"{method}\""))
                }
                _ => metrics.of_method(family, method),
            };
            assert_eq!(counted, sum as f64, "{family} of {method}");
        }
        let committed: u64 = of_method().map(Answer::tokens).sum();
        assert_eq!(metrics.of_method("specula_committed_tokens_total", method), committed as f64, "{method}");
    }
    let count = answers.len() as f64;
    let prompts: u64 = answers.iter().map(|answer| answer.usage.expect("usage").prompt_tokens).sum();
    assert_eq!(metrics.value("specula_prompt_tokens_total"), prompts as f64);
    assert_eq!(metrics.value("specula_generations_admitted_total"), count);
    assert_eq!((metrics.ended("finished"), metrics.ended("failed")), (count - 1.0, 0.0));
    for plugin in ["min-p", "typical"] {
        let costs = answers.iter().flat_map(|answer| &answer.report.plugins).filter(|cost| cost.name == plugin);
        let calls: u64 = costs.map(|cost| cost.calls).sum();
        assert_eq!(metrics.value(&format!("specula_plugin_calls_total{{plugin=\"{plugin}\"}}")), calls as f64);
    }
    let http = |status: u16| format!("specula_http_requests_total{{route=\"{CHAT}\",status=\"{status}\"}}");
    assert_eq!((metrics.value(&http(200)), metrics.value(&http(400))), (2.0 * METHODS.len() as f64 + 1.0, 1.0));
}

async fn cancelled(server: &Server) -> Answer {
    let mut socket = server.socket().await;
    socket.generate("a", &with(&question(0), bans_the_end())).await;
    for _ in 0..4 {
        socket.next().await;
    }
    socket.cancel("a").await;
    socket.finish("a").await.expect("a cancelled generation is told as finished")
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    let server = Server::shared();
    for (path, word) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.json()), (200, json!({"status": word})), "{path}");
        assert_eq!(server.send(server.request(Method::HEAD, path)).await.status, 200, "{path}");
    }
    let kind = server.get("/metrics").await;
    assert!(kind.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
}

#[tokio::test]
async fn the_model_says_what_it_can_do() {
    let server = Server::shared();
    let list: ModelList = serde_json::from_value(server.get("/v1/models").await.json()).expect("a list of models");
    let [card] = list.data.as_slice() else { panic!("one model is served: {list:?}") };
    assert_eq!((card.context_length, card.vocab_size, card.layers, card.max_window), (1024, 4096, 8, 16));
    assert!(card.row_invariant && card.draft.is_some());
    assert_eq!((card.methods.as_slice(), card.default_method.as_str()), (&METHODS.map(str::to_owned)[..], "auto"));
    // The defaults are those in force when nothing is asked for.
    for (method, defaults) in card.methods.iter().zip(&card.defaults) {
        let request = with(&question(0), json!({"speculation": {"method": method}, "max_tokens": 1, "model": card.id}));
        assert_eq!(server.whole(CHAT, &request).await.report.settings, *defaults);
    }
}

#[tokio::test]
async fn the_page_and_all_it_loads_are_served_under_its_policy() {
    let server = Server::shared();
    let index = server.get("/").await;
    assert_eq!(index.status, 200, "the page is built in by `cargo xtask build`");
    let policy = index.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"), "{policy}");
    let html = index.text().to_owned();
    let linked = html.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
    let assets: Vec<String> = linked.map(|path| format!("/{}", path.trim_start_matches(['.', '/']))).collect();
    assert!(assets.len() >= 2, "a script and a style: {assets:?}");
    for path in assets.iter().map(String::as_str).chain(["/", "/page_bg.wasm"]) {
        let reply = server.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        let kind = match path.rsplit_once('.') {
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "wasm")) => "application/wasm",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(
            (reply.header("content-type"), reply.header("x-content-type-options")),
            (Some(kind), Some("nosniff"))
        );
        let tag = reply.header("etag").expect("a tag").to_owned();
        let again = server.send(server.request(Method::GET, path).header("if-none-match", tag)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
}
