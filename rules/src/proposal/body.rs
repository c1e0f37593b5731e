//! A proposal in words: title, body, commit message.
