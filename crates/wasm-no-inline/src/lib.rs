//! Rewrites direct calls of a wasm module into calls through its table, so that V8 does not inline them.
//!
//! Envoy runs V8 with `--no-liftoff`: the optimizing compiler compiles the whole module before a listener
//! listens. It has no call counts then, and inlines every direct call whose callee is at most twice as long
//! as the caller, in their order: panics, the allocator and formatting, again and again, in code that runs
//! once. That made 2.2 MB of the module's 0.87 MB of code. LLVM has inlined before, with knowledge of the
//! program. V8 does not inline calls through a table.
//!
//! Such a call takes a nanosecond longer. So these calls stay direct:
//! - calls of functions that are hardly longer than a call with its arguments,
//! - calls that V8 would not inline anyway,
//! - calls that a request makes once per block or token: the caller of [`rewrite`] names the functions.
//!
//! A call that does not return, mostly a panic, never stays direct. Tail calls, which LLVM emits only on
//! request, are not changed.
//!
//! It also makes builds reproducible where LLVM does not: see `tries.rs`.
//!
//! The library maps bytes to bytes, without IO. It depends on a wasm parser and encoder, and on nothing else
//! of the workspace.

mod tries;

use std::convert::Infallible;

use wasm_encoder::reencode::{Error as EncodeError, Reencode};
use wasm_encoder::{CodeSection, ConstExpr, ElementSection, Elements, Instruction, Module};
use wasmparser::{
    BinaryReaderError, CustomSectionReader, ElementSectionReader, FunctionBody, KnownCustom, Name,
    Operator, Parser, Payload, Table, TypeRef, Validator, WasmFeatures,
};

/// The most bytes of a function that is hardly longer than a call with its arguments: the allocator's
/// forwarders, getters. One module in Envoy, with other limits and with none (one worker, medians of four
/// alternating starts); the CPU time of requests did not differ measurably:
///
/// | bytes | calls through the table | code of V8 | resident | CPU to start |
/// |--:|--:|--:|--:|--:|
/// | 0 | 9,563 | 2.3 MiB | 106 MiB | 1.17 s |
/// | 16 | 9,517 | 2.3 MiB | 106 MiB | 1.09 s |
/// | 32 | 8,787 | 2.3 MiB | 106 MiB | 1.08 s |
/// | 64 | 7,082 | 2.7 MiB | 109 MiB | 1.23 s |
/// | 128 | 4,842 | 3.3 MiB | 111 MiB | 1.62 s |
/// | any | 469 | 3.8 MiB | 119 MiB | 2.05 s |
const MAX_SMALL_BODY: u64 = 32;

/// V8 does not inline a callee that is more than this many times as long as the caller (V8 14.6,
/// `NoLiftoffBudget` in `src/wasm/inlining-tree.h`).
const MAX_INLINED_RATIO: u64 = 2;

/// The reason why a module could not be rewritten.
#[derive(Debug)]
pub enum Error {
    /// The module is invalid, before or after it was rewritten.
    Invalid(BinaryReaderError),
    /// The module cannot be encoded again.
    Encoding(EncodeError<Infallible>),
    /// The module does not have exactly one table with elements, as modules from Rust do.
    NoTable,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(error) => write!(f, "invalid module: {error}"),
            Self::Encoding(error) => write!(f, "cannot be encoded again: {error}"),
            Self::NoTable => {
                f.write_str("expected exactly one table, defined by the module, with elements")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<BinaryReaderError> for Error {
    fn from(error: BinaryReaderError) -> Self {
        Self::Invalid(error)
    }
}

/// A rewritten module.
#[derive(Debug)]
pub struct Rewritten {
    /// The module, without its names and other custom sections.
    pub module: Vec<u8>,
    /// The number of calls that go through the table now.
    pub calls: usize,
    /// The functions to be called directly that the module does not have.
    pub missing: Vec<String>,
}

/// Rewrites a module, which must have its name section. Calls of the functions in `direct`, named as in the
/// sources, stay direct.
pub fn rewrite(wasm: &[u8], direct: &[&str]) -> Result<Rewritten, Error> {
    let functions = Functions::read(wasm, direct)?;
    let missing = direct
        .iter()
        .filter(|name| !functions.found.iter().any(|found| found == *name));
    let missing = missing.map(|name| (*name).to_owned()).collect();
    let mut rewriter = Rewriter {
        caller: u32::try_from(functions.imported).unwrap_or(u32::MAX),
        functions,
        calls: 0,
    };
    let mut module = Module::new();
    rewriter
        .parse_core_module(&mut module, Parser::new(0), wasm)
        .map_err(Error::Encoding)?;
    let module = module.finish();
    // Rust's unwinding is compiled to these.
    let features = WasmFeatures::default() | WasmFeatures::LEGACY_EXCEPTIONS;
    Validator::new_with_features(features).validate_all(&module)?;
    Ok(Rewritten {
        module,
        calls: rewriter.calls,
        missing,
    })
}

/// The facts about all functions that are needed before the first call.
#[derive(Default)]
struct Functions {
    /// The type of each function, imported ones first.
    types: Vec<u32>,
    imported: usize,
    /// The length of each body.
    lengths: Vec<u64>,
    /// The functions to be called directly.
    direct: Vec<u32>,
    /// Their names.
    found: Vec<String>,
    /// The number of elements of the table before.
    elements: i32,
    tables: usize,
    has_elements: bool,
}

impl Functions {
    fn read(wasm: &[u8], direct: &[&str]) -> Result<Self, Error> {
        let mut all = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        match import?.ty {
                            TypeRef::Func(kind) => {
                                all.types.push(kind);
                                all.imported += 1;
                            }
                            TypeRef::Table(_) => return Err(Error::NoTable),
                            _ => {}
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for kind in section {
                        all.types.push(kind?);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        all.elements = i32::try_from(table?.ty.initial).unwrap_or(i32::MAX);
                        all.tables += 1;
                    }
                }
                Payload::ElementSection(_) => all.has_elements = true,
                Payload::CodeSectionEntry(body) => {
                    let range = body.range();
                    all.lengths.push(range.end - range.start);
                }
                Payload::CustomSection(section) => all.read_names(&section, direct)?,
                _ => {}
            }
        }
        if all.tables == 1 && all.has_elements {
            Ok(all)
        } else {
            Err(Error::NoTable)
        }
    }

    fn read_names(
        &mut self,
        section: &CustomSectionReader<'_>,
        direct: &[&str],
    ) -> Result<(), Error> {
        let KnownCustom::Name(names) = section.as_known() else {
            return Ok(());
        };
        for subsection in names {
            let Name::Function(names) = subsection? else {
                continue;
            };
            for naming in names {
                let naming = naming?;
                // Newer manglings write `<module::Type>::method`, older ones `module::Type::method`.
                let name =
                    format!("{:#}", rustc_demangle::demangle(naming.name)).replace(['<', '>'], "");
                if direct.contains(&name.as_str()) {
                    self.direct.push(naming.index);
                    self.found.push(name);
                }
            }
        }
        Ok(())
    }

    /// Returns the functions that the module defines.
    fn own(&self) -> impl Iterator<Item = u32> {
        (0..u32::MAX).take(self.types.len()).skip(self.imported)
    }

    /// Returns the element of a function in the enlarged table, to which functions are appended in their order.
    fn element(&self, function: u32) -> Option<i32> {
        let own = (function as usize).checked_sub(self.imported)?;
        self.elements.checked_add(i32::try_from(own).ok()?)
    }

    /// Returns the length of the body of a function that the module defines.
    fn length(&self, function: u32) -> Option<u64> {
        let own = (function as usize).checked_sub(self.imported)?;
        self.lengths.get(own).copied()
    }

    /// Returns whether V8 may inline a function.
    fn may_be_inlined(&self, function: u32) -> bool {
        let small = self
            .length(function)
            .is_some_and(|length| length <= MAX_SMALL_BODY);
        small || self.direct.contains(&function)
    }

    /// Returns the type and the element by which `caller` calls `callee` through the table; `None` if the call
    /// stays direct.
    fn through_table(&self, caller: u32, callee: u32, returns: bool) -> Option<(u32, i32)> {
        let (own, other) = (self.length(caller)?, self.length(callee)?);
        // If the caller itself may be inlined, the length of its own caller would count.
        let too_long =
            other > own.saturating_mul(MAX_INLINED_RATIO) && !self.may_be_inlined(caller);
        if returns && (too_long || self.may_be_inlined(callee)) {
            return None;
        }
        Some((*self.types.get(callee as usize)?, self.element(callee)?))
    }
}

struct Rewriter {
    functions: Functions,
    /// The function whose body is next.
    caller: u32,
    calls: usize,
}

type Encoded = Result<(), EncodeError<Infallible>>;

impl Reencode for Rewriter {
    type Error = Infallible;

    fn parse_table(
        &mut self,
        tables: &mut wasm_encoder::TableSection,
        table: Table<'_>,
    ) -> Encoded {
        let more = self.functions.own().count() as u64;
        let mut kind = self.table_type(table.ty)?;
        kind.minimum += more;
        kind.maximum = kind.maximum.map(|maximum| maximum + more);
        tables.table(kind);
        Ok(())
    }

    fn parse_element_section(
        &mut self,
        elements: &mut ElementSection,
        section: ElementSectionReader<'_>,
    ) -> Encoded {
        for element in section {
            self.parse_element(elements, element?)?;
        }
        let own: Vec<u32> = self.functions.own().collect();
        let offset = ConstExpr::i32_const(self.functions.elements);
        elements.active(None, &offset, Elements::Functions(own.into()));
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Encoded {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let operators = body.get_operators_reader()?.into_iter();
        let mut operators = operators.collect::<Result<Vec<_>, _>>()?;
        tries::order(&mut operators);
        let mut operators = operators.into_iter().peekable();
        while let Some(operator) = operators.next() {
            let call = match operator {
                Operator::Call { function_index } => {
                    // LLVM puts it after each call that does not return.
                    let returns = !matches!(operators.peek(), Some(Operator::Unreachable));
                    self.functions
                        .through_table(self.caller, function_index, returns)
                }
                _ => None,
            };
            if let Some((type_index, element)) = call {
                self.calls += 1;
                function.instruction(&Instruction::I32Const(element));
                function.instruction(&Instruction::CallIndirect {
                    type_index,
                    table_index: 0,
                });
            } else {
                function.instruction(&self.instruction(operator)?);
            }
        }
        code.function(&function);
        self.caller += 1;
        Ok(())
    }

    fn parse_custom_section(&mut self, _: &mut Module, _: CustomSectionReader<'_>) -> Encoded {
        // Names, producers, features: Envoy does not need them.
        Ok(())
    }
}

#[cfg(test)]
mod tests;
