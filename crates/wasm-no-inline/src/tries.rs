//! One order for `try`s that LLVM starts in a different order in each build.
//!
//! Where a call unwinds to another place than the blocks around it say, LLVM wraps it in a `try … delegate`. Two such
//! calls with different places, the second of which uses the result of the first, come out in one of two ways: the
//! `try` of the second starts before that of the first, or behind its `delegate`. LLVM iterates over the places in an
//! order of addresses (`UnwindDestToTryRanges` in `WebAssemblyCFGStackify.cpp`, a `DenseMap` of pointers), which
//! differs from run to run. Both do the same, and two builds of the same sources had different bytes.

use std::convert::Infallible;

use wasm_encoder::reencode::{Error as EncodeError, Reencode};
use wasm_encoder::{CodeSection, Module};
use wasmparser::{BlockType, FunctionBody, Operator, Parser};

use crate::Error;

/// Returns the module with the `try`s of all functions in order.
pub fn ordered(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let mut module = Module::new();
    Ordering.parse_core_module(&mut module, Parser::new(0), wasm)?;
    Ok(module.finish())
}

struct Ordering;

impl Reencode for Ordering {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), EncodeError<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let operators = body.get_operators_reader()?.into_iter();
        let mut operators = operators.collect::<Result<Vec<_>, _>>()?;
        order(&mut operators);
        for operator in operators {
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }
}

/// Starts each `try` behind a `try … delegate` that it begins with, if exceptions of that one pass it by.
fn order(operators: &mut [Operator<'_>]) {
    // From the last on: what a `try` begins with is in order before it is looked at.
    for start in (0..operators.len()).rev() {
        let mut outer = start;
        while let Some(end) = passed_by(operators, outer) {
            if let Some(Operator::Delegate { relative_depth }) = operators.get_mut(end) {
                *relative_depth -= 1;
            }
            if let Some(moved) = operators.get_mut(outer..=end) {
                moved.rotate_left(1);
            }
            outer = end;
        }
    }
}

/// Returns the `delegate` of the inner `try` with which the `try` at `outer` begins, if that one can come first: its
/// exceptions go to a place around the outer one, it leaves nothing on the stack, and nothing in it refers to a place
/// by its depth.
fn passed_by(operators: &[Operator<'_>], outer: usize) -> Option<usize> {
    let [Operator::Try { .. }, Operator::Try { blockty }, within @ ..] = operators.get(outer..)?
    else {
        return None;
    };
    let length = within.iter().position(is_control)?;
    let passes = matches!(
        within.get(length),
        Some(Operator::Delegate {
            relative_depth: 1..
        })
    );
    (passes && *blockty == BlockType::Empty).then_some(outer + 2 + length)
}

/// Returns whether an operator begins, divides or ends a block, or refers to one.
fn is_control(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Block { .. }
            | Loop { .. }
            | If { .. }
            | Else
            | Try { .. }
            | Catch { .. }
            | CatchAll
            | Rethrow { .. }
            | Delegate { .. }
            | End
            | Br { .. }
            | BrIf { .. }
            | BrTable { .. }
    )
}
