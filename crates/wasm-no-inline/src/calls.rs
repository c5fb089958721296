//! How calls go through the table: each by itself, or by a thunk if there are many of the same function.
//!
//! A call through the table has twice the bytes of a direct one, and a quarter of all are of two functions: a panic and
//! the one that frees memory. Such calls become direct calls of a thunk, a function that does nothing but call
//! the other through the table. Where V8 inlines the thunk, only the call through the table is left.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use wasm_encoder::{Function, Instruction};

use crate::{Functions, Index};

/// The fewest calls of a function for which there is a thunk. A thunk has about 17 bytes, and saves three or four for
/// each call; but V8 takes time to inline it. The module, and the CPU time for Envoy's start (one worker,
/// medians of five alternating starts beside other load):
///
/// | calls | module | CPU to start |
/// |--:|--:|--:|
/// | 6 | 925 KB | 1.53 s |
/// | 60 | 934 KB | 1.36 s |
/// | no thunks | 945 KB | 1.37 s |
const MIN_CALLS: usize = 60;

/// The functions that are called through the table.
pub struct Calls {
    /// Those with the most calls first: their thunks have the lowest indices of functions, which need one byte.
    callees: Vec<Callee>,
    /// The number of thunks: the first functions have one each.
    thunks: u32,
    /// The position of each function.
    positions: HashMap<Index, u32>,
}

struct Callee {
    function: Index,
    type_index: u32,
    parameters: u32,
    element: i32,
}

impl Calls {
    pub fn new(functions: &Functions) -> Self {
        let mut counts = BTreeMap::<Index, usize>::new();
        for call in &functions.calls {
            if functions.through_table(call) {
                *counts.entry(call.callee).or_default() += 1;
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(_, calls)| Reverse(calls));
        let thunks = counts.iter().zip(0..);
        let thunks = thunks.take_while(|((_, calls), _)| *calls >= MIN_CALLS);
        let thunks = thunks.map(|(_, position)| position + 1).last();
        let callee = |((function, _), element): ((Index, usize), i32)| {
            let type_index = *functions.types.get(function as usize)?;
            Some(Callee {
                function,
                type_index,
                parameters: *functions.parameters.get(type_index as usize)?,
                element,
            })
        };
        let callees = counts.into_iter().zip(functions.elements..);
        let callees: Vec<_> = callees.filter_map(callee).collect();
        let positions = callees.iter().zip(0..);
        let positions = positions.map(|(callee, position)| (callee.function, position));
        Self {
            positions: positions.collect(),
            callees,
            thunks: thunks.unwrap_or(0),
        }
    }

    /// Returns the functions that are appended to the table.
    pub fn callees(&self) -> impl Iterator<Item = Index> + '_ {
        self.callees.iter().map(|callee| callee.function)
    }

    /// Returns the number of thunks.
    pub fn thunk_count(&self) -> u32 {
        self.thunks
    }

    /// Returns the types and the bodies of the thunks.
    pub fn thunks(&self) -> impl Iterator<Item = (u32, Function)> + '_ {
        self.callees
            .iter()
            .take(self.thunks as usize)
            .map(|callee| {
                let mut thunk = Function::new([]);
                for parameter in 0..callee.parameters {
                    thunk.instruction(&Instruction::LocalGet(parameter));
                }
                for instruction in callee.through_table() {
                    thunk.instruction(&instruction);
                }
                thunk.instruction(&Instruction::End);
                (callee.type_index, thunk)
            })
    }

    /// Returns the instructions that call a function, if it is called through the table. The thunks are the functions
    /// from `first_thunk` on.
    pub fn call(&self, function: Index, first_thunk: Index) -> Option<Vec<Instruction<'static>>> {
        let position = *self.positions.get(&function)?;
        if position < self.thunks {
            return Some(vec![Instruction::Call(first_thunk + position)]);
        }
        let callee = self.callees.get(position as usize)?;
        Some(callee.through_table().to_vec())
    }
}

impl Callee {
    fn through_table(&self) -> [Instruction<'static>; 2] {
        [
            Instruction::I32Const(self.element),
            Instruction::CallIndirect {
                type_index: self.type_index,
                table_index: 0,
            },
        ]
    }
}
