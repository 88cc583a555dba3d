//! Chat templates: Hugging Face's Jinja dialect, rendered so that user text cannot forge a turn.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;
use specula_decoding::TokenId;

use crate::tokenizer::{Tokenizer, free_mark};

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`.
    pub role: String,
    /// Text.
    pub content: String,
}

/// A model's chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// Why a chat could not be rendered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the model's chat template refuses this chat: {0}")]
pub struct TemplateError(pub String);

impl ChatTemplate {
    /// Parses a template. `named` are the special tokens that it may write by name: `bos_token` and the like. It gets no
    /// clock (`strftime_now`): a text depends on what was asked, not on the day.
    ///
    /// # Errors
    /// The template's syntax error.
    pub fn new(source: &str, named: impl IntoIterator<Item = (&'static str, String)>) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        for (name, token) in named {
            environment.add_global(name, token);
        }
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(template_error)?;
        environment.set_syntax(syntax);
        environment.add_template_owned("chat", source.to_owned()).map_err(template_error)?;
        Ok(Self { environment })
    }

    /// Tokens of a chat up to where the assistant's answer begins. Special tokens in contents and roles stay text.
    ///
    /// # Errors
    /// [`TemplateError`], with the template's own words if it raised one.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[ChatMessage]) -> Result<Vec<TokenId>, TemplateError> {
        let texts: Vec<&str> = messages.iter().flat_map(|m| [m.role.as_str(), m.content.as_str()]).collect();
        let mark = free_mark(&texts).map_err(TemplateError)?;
        let disarmed = self.render(messages, |text| tokenizer.disarm(text, mark))?;
        // Templates edit contents (strip, replace), which may join to a special token what the text had apart. Where more
        // special tokens come out than from contents that cannot be joined, those are taken.
        let guarded = self.render(messages, |text| tokenizer.guard(text, mark))?;
        let more = tokenizer.count_specials(&disarmed) > tokenizer.count_specials(&guarded);
        let rendered = if more { guarded } else { disarmed };
        tokenizer.encode_marked(&rendered, mark).map_err(TemplateError)
    }

    fn render(&self, messages: &[ChatMessage], marked: impl Fn(&str) -> String) -> Result<String, TemplateError> {
        let message = |m: &ChatMessage| ChatMessage { role: marked(&m.role), content: marked(&m.content) };
        let messages: Vec<ChatMessage> = messages.iter().map(message).collect();
        let template = self.environment.get_template("chat").map_err(template_error)?;
        let context = context! { messages => Value::from(Serde(&messages)), add_generation_prompt => true };
        template.render(context).map_err(template_error)
    }
}

fn template_error(error: Error) -> TemplateError {
    TemplateError(error.to_string())
}
