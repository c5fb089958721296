//! Text to [`Node`], YAML or JSON, and back from a path to its line and column.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::document::problem::Step;
use crate::document::{Node, Path, Problem, Problems};

/// No configuration is larger; the Endpoint Picker's own file discovery has the same bound.
const MAX_BYTES: usize = 1 << 20;

/// Nodes of the largest sensible document, aliases expanded: a pool of 1,000 endpoints has 10,000.
const MAX_NODES: usize = 200_000;

/// Problems that are given their place. Each costs another reading of the text: thousands of wrong
/// endpoints would keep Envoy's main thread for minutes, and nobody mends more than these at a time.
const MOST_LOCATED: usize = 20;

/// Parses a document; repeated keys are problems, but do not end the reading.
pub fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    if text.len() > MAX_BYTES {
        let message = format!("found {} bytes, expected at most {MAX_BYTES}", text.len());
        problems.error(&Path::default(), message);
        return None;
    }
    let builder = Builder::default();
    let parsed = read(
        text,
        Build {
            builder: &builder,
            path: Path::default(),
        },
    );
    for path in builder.repeated.into_inner() {
        problems.error(&path, "this key is given twice");
    }
    match parsed {
        Ok(node) => Some(node),
        Err(trouble) => {
            problems.errors.push(Problem {
                path: Path::default(),
                message: format!("this is neither YAML nor JSON: {}", trouble.message),
                location: trouble.location,
            });
            None
        }
    }
}

/// Gives the first problems their lines and columns.
pub fn locate(text: &str, problems: &mut Problems) {
    let all = problems.errors.iter_mut().chain(&mut problems.warnings);
    let unlocated = all.filter(|problem| problem.location.is_none());
    for problem in unlocated.take(MOST_LOCATED) {
        let mut steps = problem.path.steps();
        // What is missing is at the place that it is missing from.
        while let Some((_, parent)) = steps.split_last() {
            let found = Cell::new(false);
            let outcome = read(
                text,
                Find {
                    steps,
                    found: &found,
                },
            );
            if let (true, Err(trouble)) = (found.get(), outcome) {
                problem.location = trouble.location;
                break;
            }
            steps = parent;
        }
    }
}

/// What a parser said.
struct Trouble {
    message: String,
    location: Option<(usize, usize)>,
}

/// A text that begins with a brace is JSON if JSON takes it: YAML knows neither tabs nor JSON's
/// surrogate pairs.
fn read<'t, S>(text: &'t str, seed: S) -> Result<S::Value, Trouble>
where
    S: DeserializeSeed<'t> + Clone,
{
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(text);
        let value = seed.clone().deserialize(&mut json);
        let value = value.and_then(|value| json.end().map(|()| value));
        let is_json = !matches!(&value, Err(error) if error.is_syntax());
        if is_json {
            return value.map_err(|error| Trouble {
                message: error.to_string(),
                location: Some((error.line(), error.column())),
            });
        }
    }
    let yaml = serde_yaml::Deserializer::from_str(text);
    seed.deserialize(yaml).map_err(|error| Trouble {
        location: error.location().map(|place| (place.line(), place.column())),
        message: error.to_string(),
    })
}

/// State of one build.
#[derive(Default)]
struct Builder {
    nodes: Cell<usize>,
    repeated: RefCell<Vec<Path>>,
}

/// Builds the node at a path.
#[derive(Clone)]
struct Build<'b> {
    builder: &'b Builder,
    path: Path,
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let count = self.builder.nodes.get() + 1;
        self.builder.nodes.set(count);
        if count > MAX_NODES {
            return Err(D::Error::custom(format!("more than {MAX_NODES} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        loop {
            let path = self.path.index(nodes.len());
            let Some(node) = access.next_element_seed(Build {
                builder: self.builder,
                path,
            })?
            else {
                return Ok(Node::List(nodes));
            };
            nodes.push(node);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = self.path.key(&key);
            let node = access.next_value_seed(Build {
                builder: self.builder,
                path: path.clone(),
            })?;
            if entries.iter().any(|(known, _)| *known == key) {
                self.builder.repeated.borrow_mut().push(path);
            } else {
                entries.push((key, node));
            }
        }
        Ok(Node::Map(entries))
    }
}

/// Walks down some steps and raises an error there, to which the parser adds the place.
#[derive(Clone)]
struct Find<'s> {
    steps: &'s [Step],
    found: &'s Cell<bool>,
}

impl Find<'_> {
    fn here<E: Error>(&self) -> E {
        self.found.set(true);
        E::custom("here")
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.leaf()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.leaf()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (first, rest) = match self.steps.split_first() {
            None => return Err(self.here()),
            Some(split) => split,
        };
        let mut position = 0;
        loop {
            let wanted = *first == Step::Index(position);
            let element = if wanted {
                access.next_element_seed(Find {
                    steps: rest,
                    found: self.found,
                })?
            } else {
                access.next_element::<serde::de::IgnoredAny>()?.map(|_| ())
            };
            if element.is_none() {
                return Ok(());
            }
            position += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let (first, rest) = match self.steps.split_first() {
            None => return Err(self.here()),
            Some(split) => split,
        };
        let Step::Key(wanted) = first else {
            return Ok(());
        };
        loop {
            if rest.is_empty() {
                // Raises at the key itself.
                let key = FindKey {
                    wanted,
                    find: &self,
                };
                if access.next_key_seed(key)?.is_none() {
                    return Ok(());
                }
                access.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let Some(key) = access.next_key::<String>()? else {
                return Ok(());
            };
            if key == *wanted {
                access.next_value_seed(Find {
                    steps: rest,
                    found: self.found,
                })?;
            } else {
                access.next_value::<serde::de::IgnoredAny>()?;
            }
        }
    }
}

impl Find<'_> {
    fn leaf<E: Error>(&self) -> Result<(), E> {
        match self.steps {
            [] => Err(self.here()),
            _ => Ok(()),
        }
    }
}

struct FindKey<'s> {
    wanted: &'s str,
    find: &'s Find<'s>,
}

impl<'de> DeserializeSeed<'de> for FindKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FindKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if key == self.wanted {
            return Err(self.find.here());
        }
        Ok(())
    }
}
