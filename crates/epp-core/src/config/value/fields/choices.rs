//! Fields that hold one of a few words.

use super::{Fields, ABSENT};
use crate::config::value::{Kind, Node};

impl Fields<'_> {
    /// One of a few words.
    pub fn choice<T: Copy + PartialEq>(
        &mut self,
        name: &'static str,
        default: T,
        words: &[(&'static str, T)],
    ) -> T {
        let stated = words.iter().position(|(_, value)| *value == default);
        let place = self.word(name, stated, names(words));
        let chosen = place.and_then(|place| words.get(place));
        chosen.map_or(default, |(_, value)| *value)
    }

    /// The place of one of a few words. What does not depend on their meaning is compiled once, not for each use.
    fn word(
        &mut self,
        name: &'static str,
        default: Option<usize>,
        words: Vec<&'static str>,
    ) -> Option<usize> {
        let node = |place: Option<usize>| {
            let word = words.get(place?)?;
            Some(Node::String((*word).to_owned()))
        };
        self.ask(name, Kind::Choice(words.clone()), node(default));
        let given = self.text(name, "");
        let place = words.iter().position(|word| *word == given);
        if place.is_none() && !given.is_empty() {
            self.refuse(name, &Node::String(given), &words.join(" or "));
        }
        let place = place.or(default);
        if let Some(word) = node(place) {
            self.note(name, word);
        }
        place
    }

    /// One of a few words, that must be given.
    pub fn required_choice<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let place = self.required_word(name, names(words))?;
        words.get(place).map(|(_, value)| *value)
    }

    fn required_word(&mut self, name: &'static str, words: Vec<&'static str>) -> Option<usize> {
        let node = self.node(name).unwrap_or(&ABSENT);
        let place = words
            .iter()
            .position(|word| matches!(node, Node::String(text) if text == word));
        if place.is_none() {
            self.refuse(name, node, &words.join(" or "));
        }
        self.ask_required(name, Kind::Choice(words));
        place
    }
}

fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}
