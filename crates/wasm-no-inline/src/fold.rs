//! One function for all that do the same.
//!
//! Rust compiles generic code once per type, and for many types, such as all pointers, to the same instructions. LLVM
//! merges what is equal before it is lowered, and `wasm-ld` merges nothing. Functions are equal here if their bodies are,
//! where callees count as equal if they are so themselves; recursive ones can be, too.
//!
//! The functions' elements of the table stay apart, so no comparison of two function pointers changes.

use std::collections::HashMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{utils, Error as EncodeError, Reencode};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{
    BinaryReaderError, CodeSectionReader, FunctionBody, FunctionSectionReader, Operator, Parser,
    Payload, TypeRef,
};

use crate::Error;

/// Returns the module with one function instead of each group of equal ones.
pub fn fold(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let mut folding = Folding::new(&Functions::read(wasm)?);
    let mut module = Module::new();
    folding.parse_core_module(&mut module, Parser::new(0), wasm)?;
    Ok(module.finish())
}

/// What the functions of a module do.
#[derive(Default)]
struct Functions {
    imported: u32,
    /// The type of each function of the module's own.
    types: Vec<u32>,
    bodies: Vec<Body>,
}

/// A body, divided in what it is without the functions that it refers to, and these.
struct Body {
    rest: Vec<u8>,
    callees: Vec<u32>,
}

impl Functions {
    fn read(wasm: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut all = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        all.imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => {
                    all.types = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::CodeSectionEntry(body) => all.bodies.push(Body::read(wasm, &body)?),
                _ => {}
            }
        }
        Ok(all)
    }

    /// Returns the class of each function of the module's own: equal functions have the same.
    fn classes(&self) -> Vec<u32> {
        let first = self.types.iter().zip(&self.bodies);
        let mut classes = numbered(first.map(|(kind, body)| (kind, &body.rest)));
        // Functions of one class are divided by the classes of their callees, until no class is. As classes are only
        // ever divided, an equal count means that none was.
        loop {
            let callees = |body: &Body| -> Vec<_> {
                let class = |&callee: &u32| match callee.checked_sub(self.imported) {
                    Some(own) => (true, classes.get(own as usize).copied()),
                    None => (false, Some(callee)),
                };
                body.callees.iter().map(class).collect()
            };
            let with_callees = self.bodies.iter().map(callees);
            let divided = numbered(classes.iter().zip(with_callees));
            if divided.iter().max() == classes.iter().max() {
                return divided;
            }
            classes = divided;
        }
    }
}

impl Body {
    fn read(wasm: &[u8], body: &FunctionBody<'_>) -> Result<Self, BinaryReaderError> {
        let bytes = |from: u64, to: u64| wasm.get(from as usize..to as usize).unwrap_or_default();
        let mut read = Self {
            rest: Vec::new(),
            callees: Vec::new(),
        };
        let mut operators = body.get_operators_reader()?;
        // The declarations of its locals.
        let mut start = body.range().start;
        read.rest
            .extend_from_slice(bytes(start, operators.original_position()));
        while !operators.eof() {
            start = operators.original_position();
            match operators.read()? {
                Operator::Call { function_index } | Operator::RefFunc { function_index } => {
                    read.callees.push(function_index);
                    read.rest.extend_from_slice(bytes(start, start + 1));
                }
                _ => read
                    .rest
                    .extend_from_slice(bytes(start, operators.original_position())),
            }
        }
        Ok(read)
    }
}

/// Returns a number for each value, by first occurrence: equal values have the same.
fn numbered<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> Vec<u32> {
    let mut known = HashMap::new();
    let number = |value| {
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        *known.entry(value).or_insert(next)
    };
    values.map(number).collect()
}

struct Folding {
    imported: u32,
    classes: Vec<u32>,
}

impl Folding {
    fn new(functions: &Functions) -> Self {
        Self {
            imported: functions.imported,
            // Numbered by first occurrence: these are the new indices of the functions.
            classes: functions.classes(),
        }
    }

    /// Returns whether each function of the module's own is the first of its class.
    fn first(&self) -> Vec<bool> {
        let mut next = 0;
        let first = |&class: &u32| {
            let first = class == next;
            next += u32::from(first);
            first
        };
        self.classes.iter().map(first).collect()
    }
}

type Encoded = Result<(), EncodeError<Infallible>>;

impl Reencode for Folding {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, EncodeError<Infallible>> {
        let own = function.checked_sub(self.imported);
        let class = own.and_then(|own| self.classes.get(own as usize));
        Ok(class.map_or(function, |class| self.imported + class))
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Encoded {
        for (kind, first) in section.into_iter().zip(self.first()) {
            if first {
                functions.function(self.type_index(kind?)?);
            }
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Encoded {
        for (body, first) in section.into_iter().zip(self.first()) {
            if first {
                utils::parse_function_body(self, code, body?)?;
            }
        }
        Ok(())
    }
}
