//! A text with the location of each character in its file, across nested quoting and indentation.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use epp_core::config::find::{Find, Target};
use epp_core::config::value::problem::Step;
use epp_core::config::value::Path;
use serde::de::DeserializeSeed;

/// Line and column, counted from 1.
type Place = (usize, usize);

/// A text of a file.
pub struct Layer {
    /// The text.
    pub text: String,
    origin: Origin,
}

/// Where a text is from.
enum Origin {
    File,
    /// The lines of another text that are below this many.
    Part {
        of: Rc<Layer>,
        above: usize,
    },
    /// A string in another text, behind this part of it.
    Inside {
        of: Rc<Layer>,
        path: Path,
        prefix: String,
        /// Found when a location is asked for, since this reads the whole other text.
        places: OnceCell<Places>,
    },
}

enum Places {
    /// The location of each character of each line; `None` for a space.
    Characters(Vec<Vec<Option<Place>>>),
    /// One location for all characters, if the quoting there is not understood.
    One(Place),
}

impl Layer {
    /// Creates the layer of a whole file.
    pub fn of_file(text: &str) -> Rc<Self> {
        Rc::new(Self {
            text: text.to_owned(),
            origin: Origin::File,
        })
    }

    /// Translates a line and column of the text to the file.
    pub fn in_file(&self, (line, column): Place) -> Place {
        match &self.origin {
            Origin::File => (line, column),
            Origin::Part { of, above } => of.in_file((above + line, column)),
            Origin::Inside {
                of,
                path,
                prefix,
                places,
            } => {
                let places = places.get_or_init(|| places_of(of, path, prefix, &self.text));
                places.in_file((line, column))
            }
        }
    }

    /// Returns the non-empty YAML documents of the text; one if it is not a stream of several.
    pub fn documents(self: &Rc<Self>) -> Vec<Self> {
        let parts = split_yaml(&self.text).into_iter();
        let part = |(above, text)| Self {
            text,
            origin: Origin::Part {
                of: self.clone(),
                above,
            },
        };
        parts.map(part).collect()
    }

    /// Returns the layer of the string at a path, from a byte offset on.
    pub fn text_at(self: &Rc<Self>, path: &Path, value: &str, from: usize) -> Option<Rc<Self>> {
        let (prefix, text) = value.split_at_checked(from)?;
        Some(Rc::new(Self {
            text: text.to_owned(),
            origin: Origin::Inside {
                of: self.clone(),
                path: path.clone(),
                prefix: prefix.to_owned(),
                places: OnceCell::new(),
            },
        }))
    }
}

impl Places {
    fn in_file(&self, (line, column): Place) -> Place {
        let lines = match self {
            Self::One(place) => return *place,
            Self::Characters(lines) => lines,
        };
        let of = |line: &[Option<Place>]| {
            let at = column.saturating_sub(1).min(line.len());
            let (before, after) = line.split_at(at);
            let next = after.iter().flatten().next();
            next.or_else(|| before.iter().flatten().next_back())
                .copied()
        };
        let at = line.saturating_sub(1).min(lines.len());
        let (before, after) = lines.split_at(at);
        let after = after.iter().find_map(|line| of(line));
        let last = || {
            before
                .iter()
                .rev()
                .find_map(|line| line.iter().flatten().next_back())
        };
        after.or_else(|| last().copied()).unwrap_or((1, 1))
    }
}

/// Returns the locations of a text that follows a prefix in the string at a path of another text.
fn places_of(of: &Layer, path: &Path, prefix: &str, text: &str) -> Places {
    let Some(start) = begin(&of.text, path.steps()) else {
        // The nearest that is known: where the key is, or the top.
        let start = epp_core::config::line_of(&of.text, path).unwrap_or((1, 1));
        return Places::One(of.in_file(start));
    };
    let value = format!("{prefix}{text}");
    let Some(places) = aligned(&of.text, start, &value) else {
        return Places::One(of.in_file(start));
    };
    let mut lines = vec![Vec::new()];
    let characters = value.char_indices().zip(places);
    for ((_, letter), place) in characters.filter(|((byte, _), _)| *byte >= prefix.len()) {
        if letter == '\n' {
            lines.push(Vec::new());
        } else if let Some(line) = lines.last_mut() {
            line.push(place.map(|place| of.in_file(place)));
        }
    }
    Places::Characters(lines)
}

/// Returns the non-empty YAML documents of a text, each with the number of lines above it.
pub fn split_yaml(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = behind(line, "---") {
            // Text behind the marker belongs to the document: `--- {a: 1}`.
            documents.push((number, format!("   {rest}")));
        } else if behind(line, "...").is_some() {
            documents.push((number + 1, String::new()));
        } else if let Some((_, document)) = documents.last_mut() {
            // A directive precedes a document.
            document.push_str(if line.starts_with('%') { "\n" } else { line });
        }
    }
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    documents.retain(|(_, document)| !document.lines().all(blank));
    documents
}

/// Returns the rest of a line after a YAML document marker.
fn behind<'l>(line: &'l str, marker: &str) -> Option<&'l str> {
    let rest = line.strip_prefix(marker)?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest)
}

/// Returns the locations of a value's characters, except spaces, in the text that encodes it as YAML or
/// JSON. `None` if they cannot be determined.
///
/// Apart from escapes in quotes, every encoding changes spaces only: all other characters are those of the
/// value, in order.
fn aligned(text: &str, start: Place, value: &str) -> Option<Vec<Option<Place>>> {
    let mut raw = Raw::at(text, start);
    raw.open()?;
    let mut places = Vec::with_capacity(value.len());
    for wanted in value.chars() {
        if wanted.is_whitespace() {
            places.push(None);
            continue;
        }
        loop {
            let (letter, place) = raw.next()?;
            if letter == wanted {
                places.push(Some(place));
                break;
            }
            if !letter.is_whitespace() {
                return None;
            }
        }
    }
    Some(places)
}

/// A scalar in its encoded form.
struct Raw<'t> {
    letters: std::iter::Peekable<std::str::Chars<'t>>,
    place: Place,
    /// The quotes around it, if any.
    quote: Option<char>,
}

impl<'t> Raw<'t> {
    fn at(text: &'t str, (line, column): Place) -> Self {
        let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
        let above: usize = lines.map(str::len).sum();
        let rest = text.get(above..).unwrap_or_default();
        let mut letters = rest.chars();
        for _ in 1..column {
            letters.next();
        }
        Self {
            letters: letters.peekable(),
            place: (line, column),
            quote: None,
        }
    }

    fn letter(&mut self) -> Option<(char, Place)> {
        let letter = self.letters.next()?;
        let place = self.place;
        self.place = match letter {
            '\n' => (place.0 + 1, 1),
            _ => (place.0, place.1 + 1),
        };
        Some((letter, place))
    }

    /// Skips to the scalar's first character.
    fn open(&mut self) -> Option<()> {
        // Anchors and tags.
        while matches!(self.letters.peek(), Some('&' | '!')) {
            while self
                .letters
                .peek()
                .is_some_and(|letter| !letter.is_whitespace())
            {
                self.letter()?;
            }
            while self
                .letters
                .peek()
                .is_some_and(|letter| letter.is_whitespace())
            {
                self.letter()?;
            }
        }
        match self.letters.peek()? {
            '|' | '>' => while self.letter()?.0 != '\n' {},
            '"' | '\'' => self.quote = self.letter().map(|(quote, _)| quote),
            _ => {}
        }
        Some(())
    }

    /// Returns the next decoded character.
    fn next(&mut self) -> Option<(char, Place)> {
        let (letter, place) = self.letter()?;
        match (self.quote, letter) {
            (Some('\''), '\'') => self.letter().map(|_| ('\'', place)),
            (Some('"'), '\\') => self.escaped().map(|letter| (letter, place)),
            (Some('"'), '"') => None,
            _ => Some((letter, place)),
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let (letter, _) = self.letter()?;
        let digits = match letter {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' | 'N' | 'L' | 'P' | '_' | '\n' | 't' | 'r' | 'v' | 'f' => return Some(' '),
            '0' => return Some('\0'),
            'a' => return Some('\u{7}'),
            'b' => return Some('\u{8}'),
            'e' => return Some('\u{1b}'),
            other => return Some(other),
        };
        let code = self.hexadecimal(digits)?;
        // JSON writes a character beyond 16 bits as two escapes.
        if !(0xD800..0xDC00).contains(&code) {
            return char::from_u32(code);
        }
        let (slash, _) = self.letter()?;
        let (kind, _) = self.letter()?;
        let low = self
            .hexadecimal(4)
            .filter(|_| (slash, kind) == ('\\', 'u'))?;
        char::from_u32(0x10000 + ((code - 0xD800) << 10) + low.checked_sub(0xDC00)?)
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<u32> {
        (0..digits).try_fold(0_u32, |code, _| {
            let digit = self.letter()?.0.to_digit(16)?;
            code.checked_mul(16)?.checked_add(digit)
        })
    }
}

/// Returns where a value begins.
fn begin(text: &str, steps: &[Step]) -> Option<Place> {
    let found = Cell::new(false);
    let find = |text: &str| {
        // Of JSON, too: serde_json's position of a value is its end.
        let yaml = serde_yaml::Deserializer::from_str(text);
        let find = Find::new(steps, Target::Value, &found);
        let error = find.deserialize(yaml).err()?;
        let place = error.location().filter(|_| found.get())?;
        Some((place.line(), place.column()))
    };
    find(text).or_else(|| {
        // YAML does not take two escapes for one character; others are as long.
        let json = text.trim_start().starts_with('{');
        let plain = text.replace("\\ud", "\\u0").replace("\\uD", "\\u0");
        json.then(|| find(&plain)).flatten()
    })
}
