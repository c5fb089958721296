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
//! Before that, it makes builds reproducible where LLVM does not (`tries.rs`), and merges equal functions (`fold.rs`).
//!
//! The library maps bytes to bytes, without IO. It depends on a wasm parser and encoder, and on nothing else
//! of the workspace.

mod calls;
mod fold;
mod tries;

use std::convert::Infallible;

use calls::Calls;
use wasm_encoder::reencode::{utils, Error as EncodeError, Reencode};
use wasm_encoder::{
    CodeSection, ConstExpr, ElementSection, Elements, FunctionSection, Module, TableSection,
};
use wasmparser::{
    BinaryReaderError, CodeSectionReader, CustomSectionReader, ElementSectionReader, FunctionBody,
    FunctionSectionReader, KnownCustom, Name, Operator, Parser, Payload, Table, TypeRef, Validator,
    WasmFeatures,
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

impl From<EncodeError<Infallible>> for Error {
    fn from(error: EncodeError<Infallible>) -> Self {
        match error {
            EncodeError::ParseError(error) => Self::Invalid(error),
            error => Self::Encoding(error),
        }
    }
}

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
    let wasm = &fold::fold(&tries::ordered(wasm)?)?;
    let functions = Functions::read(wasm, direct)?;
    let missing = direct
        .iter()
        .filter(|name| !functions.found.iter().any(|found| found == *name));
    let missing = missing.map(|name| (*name).to_owned()).collect();
    let calls = Calls::new(&functions);
    let mut rewriter = Rewriter {
        caller: functions.imported,
        functions,
        calls,
        count: 0,
    };
    let mut module = Module::new();
    rewriter.parse_core_module(&mut module, Parser::new(0), wasm)?;
    let module = module.finish();
    // Rust's unwinding is compiled to these.
    let features = WasmFeatures::default() | WasmFeatures::LEGACY_EXCEPTIONS;
    Validator::new_with_features(features).validate_all(&module)?;
    Ok(Rewritten {
        module,
        calls: rewriter.count,
        missing,
    })
}

/// The index of a function.
type Index = u32;

/// A direct call.
struct Call {
    caller: Index,
    callee: Index,
    returns: bool,
}

/// The facts about all functions that are needed before the first call.
#[derive(Default)]
struct Functions {
    /// The type of each function, imported ones first.
    types: Vec<u32>,
    imported: u32,
    /// The number of parameters of each type.
    parameters: Vec<u32>,
    /// The length of each body.
    lengths: Vec<u64>,
    /// All direct calls.
    calls: Vec<Call>,
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
                Payload::TypeSection(section) => {
                    for kind in section.into_iter_err_on_gc_types() {
                        let parameters = kind?.params().len();
                        all.parameters
                            .push(u32::try_from(parameters).unwrap_or(u32::MAX));
                    }
                }
                Payload::CodeSectionEntry(body) => all.read_body(&body)?,
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

    fn read_body(&mut self, body: &FunctionBody<'_>) -> Result<(), BinaryReaderError> {
        let caller = self.imported + u32::try_from(self.lengths.len()).unwrap_or(u32::MAX);
        let range = body.range();
        self.lengths.push(range.end - range.start);
        let mut operators = body.get_operators_reader()?.into_iter().peekable();
        while let Some(operator) = operators.next().transpose()? {
            if let Operator::Call {
                function_index: callee,
            } = operator
            {
                self.calls.push(Call {
                    caller,
                    callee,
                    returns: returns(operators.peek()),
                });
            }
        }
        Ok(())
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

    /// Returns the length of the body of a function that the module defines.
    fn length(&self, function: u32) -> Option<u64> {
        let own = function.checked_sub(self.imported)?;
        self.lengths.get(own as usize).copied()
    }

    /// Returns whether V8 may inline a function.
    fn may_be_inlined(&self, function: u32) -> bool {
        let small = self
            .length(function)
            .is_some_and(|length| length <= MAX_SMALL_BODY);
        small || self.direct.contains(&function)
    }

    /// Returns whether a call is to go through the table.
    fn through_table(&self, call: &Call) -> bool {
        let lengths = (self.length(call.caller), self.length(call.callee));
        let (Some(own), Some(other)) = lengths else {
            return false;
        };
        // If the caller itself may be inlined, the length of its own caller would count.
        let too_long =
            other > own.saturating_mul(MAX_INLINED_RATIO) && !self.may_be_inlined(call.caller);
        !(call.returns && (too_long || self.may_be_inlined(call.callee)))
    }
}

/// Returns whether a call returns: LLVM puts `unreachable` after each that does not.
fn returns(next: Option<&Result<Operator<'_>, BinaryReaderError>>) -> bool {
    !matches!(next, Some(Ok(Operator::Unreachable)))
}

struct Rewriter {
    functions: Functions,
    calls: Calls,
    /// The function whose body is next.
    caller: u32,
    count: usize,
}

type Encoded = Result<(), EncodeError<Infallible>>;

impl Reencode for Rewriter {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, EncodeError<Infallible>> {
        // The thunks come before all functions of the module's own.
        let own = function >= self.functions.imported;
        Ok(function + if own { self.calls.thunk_count() } else { 0 })
    }

    fn parse_table(&mut self, tables: &mut TableSection, table: Table<'_>) -> Encoded {
        let more = self.calls.callees().count() as u64;
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
        let callees: Vec<Index> = self.calls.callees().collect();
        let callees: Result<Vec<_>, _> = callees
            .into_iter()
            .map(|callee| self.function_index(callee))
            .collect();
        let callees = callees?;
        let offset = ConstExpr::i32_const(self.functions.elements);
        elements.active(None, &offset, Elements::Functions(callees.into()));
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Encoded {
        for (kind, _) in self.calls.thunks() {
            functions.function(kind);
        }
        utils::parse_function_section(self, functions, section)
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Encoded {
        for (_, thunk) in self.calls.thunks() {
            code.function(&thunk);
        }
        utils::parse_code_section(self, code, section)
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Encoded {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut operators = body.get_operators_reader()?.into_iter().peekable();
        while let Some(operator) = operators.next().transpose()? {
            let Operator::Call {
                function_index: callee,
            } = operator
            else {
                function.instruction(&self.instruction(operator)?);
                continue;
            };
            let call = Call {
                caller: self.caller,
                callee,
                returns: returns(operators.peek()),
            };
            let instructions = if self.functions.through_table(&call) {
                self.calls.call(callee, self.functions.imported)
            } else {
                None
            };
            if let Some(instructions) = instructions {
                self.count += 1;
                for instruction in instructions {
                    function.instruction(&instruction);
                }
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
