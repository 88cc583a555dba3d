//! Answers in one piece: the same pieces as a stream's, added up.

use specula_engine::{Event, Finished};
use specula_protocol::Usage;
use specula_protocol::response::{AnswerMessage, Choice, Completion};

use crate::answer::{Answer, choice};
use crate::choices::Choices;
use crate::errors::Fault;
use crate::pieces::Piece;
use crate::wire;

/// The answer once all its generations have ended; the first that fails fails it.
pub(crate) async fn answer(answer: Answer, mut choices: Choices) -> Result<Completion, Fault> {
    let mut writers: Vec<_> = (0..answer.choices).map(|_| answer.writer()).collect();
    let mut folded: Vec<_> = writers.iter_mut().map(|writer| (writer.empty(), None)).collect();
    while let Some((index, event)) = choices.next().await {
        let (piece, end) = &mut folded[index];
        match event? {
            Event::Started(_) | Event::Failed(_) => {}
            Event::Prompt(tokens) => piece.push(writers[index].prompt(&tokens)),
            Event::Round(round) => piece.push(writers[index].round(&round)),
            Event::Finished(finished) => *end = Some(finished),
        }
    }
    let ended = folded.into_iter().map(|(piece, end)| Some((piece, *end?)));
    let ended = ended.collect::<Option<Vec<_>>>();
    Ok(completion(&answer, ended.ok_or(Fault::Internal("a choice ended without a last event"))?))
}

fn completion(answer: &Answer, ended: Vec<(Piece, Finished)>) -> Completion {
    let mut usage = Usage::default();
    let mut choices = Vec::with_capacity(ended.len());
    for (index, (piece, finished)) in ended.into_iter().enumerate() {
        answer.count(&mut usage, index, &finished);
        let report = wire::report(&finished);
        choices.push(Choice { specula: Some(report), ..shaped(answer, index, piece, &finished) });
    }
    // With one choice the report stands at the top, beside `usage`.
    let specula = if let [only] = choices.as_mut_slice() { only.specula.take() } else { None };
    let object = if answer.chat { "chat.completion" } else { "text_completion" };
    Completion { usage: Some(Some(usage)), specula, ..answer.completion(object, choices) }
}

fn shaped(answer: &Answer, index: usize, piece: Piece, finished: &Finished) -> Choice {
    let mut shaped = choice(index, Some(wire::finish_reason(finished.reason.as_ref())));
    shaped.logprobs = piece.logprobs;
    if answer.chat {
        shaped.message = Some(AnswerMessage { role: Some("assistant".into()), content: Some(piece.text) });
    } else {
        shaped.text = Some(piece.text);
    }
    shaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::double;

    fn piece(text: &str) -> Piece {
        Piece { text: text.into(), logprobs: None }
    }

    #[test]
    fn whole_answers_have_openai_s_shapes() {
        let chat = completion(&double::answer(true, 1), vec![(piece("hi"), double::finished(2, 3))]);
        let mut chat = serde_json::to_value(chat).expect("serialises");
        let specula = chat.as_object_mut().and_then(|o| o.remove("specula")).expect("a report");
        assert_eq!(specula["lossless"], true);
        let want = serde_json::json!({
            "id": "id", "object": "chat.completion", "created": 9, "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "logprobs": null,
                         "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}});
        assert_eq!(chat, want);
        let text = completion(&double::answer(false, 1), vec![(piece("hi"), double::finished(2, 3))]);
        let text = serde_json::to_value(text).expect("serialises");
        assert_eq!((&text["object"], &text["choices"][0]["text"]), (&"text_completion".into(), &"hi".into()));
        assert!(text["choices"][0].get("message").is_none());
    }

    #[test]
    fn several_choices_have_a_report_each_and_count_a_prompt_once() {
        let ended = ["a", "b", "c", "d"].map(|text| (piece(text), double::finished(2, 3)));
        let answer = Answer { per_prompt: 2, ..double::answer(false, 4) };
        let whole = serde_json::to_value(completion(&answer, ended.into())).expect("serialises");
        assert_eq!((&whole["choices"][3]["index"], &whole["choices"][3]["text"]), (&3.into(), &"d".into()));
        assert_eq!(whole["choices"][3]["specula"]["lossless"], true);
        assert!(whole.get("specula").is_none());
        let usage = serde_json::json!({"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16});
        assert_eq!(whole["usage"], usage);
    }
}
