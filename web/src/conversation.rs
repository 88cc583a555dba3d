//! The chat so far, as the next request carries it.

use specula_protocol::Message;

/// Questions with their answers, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    turns: Vec<(String, String)>,
}

impl Conversation {
    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Adds a question with its answer. One without text is left out: a template may not render an empty turn.
    pub fn push(&mut self, question: String, answer: String) {
        if !answer.is_empty() {
            self.turns.push((question, answer));
        }
    }

    /// The messages that ask `question` after all that was said.
    pub fn ask(&self, question: &str) -> Vec<Message> {
        let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        let earlier = self.turns.iter().flat_map(|(q, a)| [message("user", q), message("assistant", a)]);
        earlier.chain([message("user", question)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_turns_come_first_and_empty_answers_not_at_all() {
        let mut chat = Conversation::default();
        chat.push("a".into(), "b".into());
        chat.push("stopped at once".into(), String::new());
        let said: Vec<(String, String)> = chat.ask("c").into_iter().map(|m| (m.role, m.content)).collect();
        let want = [("user", "a"), ("assistant", "b"), ("user", "c")].map(|(r, c)| (r.to_owned(), c.to_owned()));
        assert_eq!(said, want);
    }
}
