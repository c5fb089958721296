#![allow(clippy::unwrap_used)]

use super::*;

/// Returns a module of functions. The first has the given body; the others are long, longer than any
/// caller, and short.
fn module(calls: &str) -> Vec<u8> {
    wat::parse_str(text(calls)).unwrap()
}

fn text(calls: &str) -> String {
    let long = "(drop (i32.const 1))".repeat(20);
    let padding = "(drop (i32.const 2))".repeat(20);
    let far = "(drop (i32.const 3))".repeat(200);
    format!(
        "(module
            (import \"env\" \"host\" (func $host))
            (table 2 2 funcref)
            (elem (i32.const 1) func $long)
            (func $caller {padding} {calls})
            (func $long {long})
            (func $far {far})
            (func $short)
            (func $panic unreachable)
            (export \"caller\" (func $caller)))"
    )
}

/// Returns the calls of the first function: through the table, by element, or directly, by function.
fn calls(wasm: &[u8]) -> Vec<String> {
    calls_of(wasm, 0)
}

/// Returns the calls of a function of the module's own.
fn calls_of(wasm: &[u8], function: usize) -> Vec<String> {
    let mut found = Vec::new();
    let bodies = Parser::new(0)
        .parse_all(wasm)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
    let mut element = None;
    for operator in bodies
        .skip(function)
        .take(1)
        .flat_map(|body| body.get_operators_reader().unwrap())
    {
        match operator.unwrap() {
            Operator::I32Const { value } => element = Some(value),
            Operator::Call { function_index } => found.push(format!("call {function_index}")),
            Operator::CallIndirect { .. } => found.push(format!("element {}", element.unwrap())),
            _ => {}
        }
    }
    found
}

fn rewritten(text: &str, direct: &[&str]) -> Rewritten {
    rewrite(&module(text), direct).unwrap()
}

#[test]
fn calls_that_v8_would_inline_go_through_the_table() {
    let rewritten = rewritten("call $long call $long", &[]);
    // The first element behind the table's own two.
    assert_eq!(calls(&rewritten.module), ["element 2", "element 2"]);
    assert_eq!(rewritten.calls, 2);
}

#[test]
fn calls_that_v8_does_not_inline_or_should_inline_stay_direct() {
    let rewritten = rewritten("call $host call $far call $short", &[]);
    assert_eq!(calls(&rewritten.module), ["call 0", "call 3", "call 4"]);
    assert_eq!(rewritten.calls, 0);
}

#[test]
fn calls_of_named_functions_stay_direct() {
    let rewritten = rewritten("call $long", &["long", "gone"]);
    assert_eq!(calls(&rewritten.module), ["call 2"]);
    assert_eq!(rewritten.missing, ["gone"]);
}

#[test]
fn names_are_known_in_both_manglings() {
    let name = "epp_core::prefix::index::Index::extend";
    for mangled in [
        "_ZN8epp_core6prefix5index5Index6extend17h0123456789abcdefE",
        "_RNvMNtNtCs2WTnAFKnREh_8epp_core6prefix5indexNtB2_5Index6extend",
    ] {
        let text = text("call $long").replace("$long", &format!("${mangled}"));
        let rewritten = rewrite(&wat::parse_str(text).unwrap(), &[name]).unwrap();
        assert_eq!(calls(&rewritten.module), ["call 2"], "{mangled}");
    }
}

#[test]
fn calls_of_functions_that_do_not_return_never_stay_direct() {
    let rewritten = rewritten("call $panic unreachable", &["panic"]);
    assert_eq!(calls(&rewritten.module), ["element 2"]);
}

#[test]
fn names_are_dropped_and_the_rest_is_kept() {
    let before = module("call $long");
    let after = rewritten("call $long", &[]).module;
    let sections = |wasm: &[u8], custom: bool| {
        let payloads = Parser::new(0).parse_all(wasm).map(Result::unwrap);
        payloads
            .filter(|payload| matches!(payload, Payload::CustomSection(_)) == custom)
            .filter(|payload| payload.as_section().is_some())
            .count()
    };
    assert_eq!((sections(&before, true), sections(&after, true)), (1, 0));
    assert_eq!(sections(&before, false), sections(&after, false));
}

#[test]
fn a_module_without_a_table_or_with_two_is_refused() {
    let wasm = wat::parse_str("(module (func))").unwrap();
    assert!(matches!(rewrite(&wasm, &[]), Err(Error::NoTable)));
    let second = text("").replace(
        "(table",
        "(import \"env\" \"table\" (table 1 funcref)) (table",
    );
    let second = wat::parse_str(second).unwrap();
    assert!(matches!(rewrite(&second, &[]), Err(Error::NoTable)));
    assert!(matches!(rewrite(b"no module", &[]), Err(Error::Invalid(_))));
}

#[test]
fn the_order_in_which_tries_were_started_does_not_show() {
    let placed = |body: &str| {
        let body = format!("try block {body} end catch_all end");
        rewritten(&body, &[]).module
    };
    let apart = placed(
        "try call $long delegate 1
         try call $far delegate 1
         try call $long delegate 0",
    );
    // The second `try` begins before the first, the third before the second, and both.
    for body in [
        "try try call $long delegate 2 call $far delegate 1
         try call $long delegate 0",
        "try call $long delegate 1
         try try call $far delegate 2 call $long delegate 0",
        "try try try call $long delegate 3 call $far delegate 2 call $long delegate 0",
    ] {
        assert_eq!(placed(body), apart, "{body}");
    }
}

#[test]
fn a_try_that_catches_what_the_inner_one_delegates_keeps_it() {
    let begins_with_a_try = |operators: &str| {
        let wasm = rewritten(operators, &[]).module;
        let mut bodies = Parser::new(0).parse_all(&wasm);
        let body = bodies.find_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
        let operators = body.unwrap().get_operators_reader().unwrap();
        let operators = operators.into_iter().map(Result::unwrap);
        let mut tries = operators.skip_while(|operator| !matches!(operator, Operator::Try { .. }));
        tries.next();
        matches!(tries.next(), Some(Operator::Try { .. }))
    };
    // To the outer one; with a value that the outer one uses; with a branch.
    assert!(begins_with_a_try(
        "try try call $long delegate 0 call $far catch_all end"
    ));
    assert!(begins_with_a_try(
        "block try try (result i32) i32.const 1 delegate 1 drop call $far catch_all end end"
    ));
    assert!(begins_with_a_try(
        "block try try br 1 delegate 1 call $far catch_all end end"
    ));
    // That test would fail otherwise.
    assert!(!begins_with_a_try(
        "block try try call $long delegate 1 call $far catch_all end end"
    ));
}

#[test]
fn many_calls_go_through_a_thunk() {
    let rewritten = rewritten(&"call $long ".repeat(60), &[]);
    // The thunk is the first function after the imported one.
    assert_eq!(calls_of(&rewritten.module, 1), ["call 1"; 60]);
    assert_eq!(rewritten.calls, 60);
    assert_eq!(
        instructions(&rewritten.module, 0),
        [
            "I32Const { value: 2 }",
            "CallIndirect { type_index: 0, table_index: 0 }",
            "End"
        ]
    );
}

#[test]
fn a_thunk_passes_all_parameters_on() {
    let long = "(drop (i32.const 1))".repeat(20);
    let calls = "(drop (call $callee (i32.const 5) (i64.const 6)))".repeat(60);
    let text = format!(
        "(module
            (table 1 1 funcref)
            (elem (i32.const 0) func $callee)
            (func $callee (param i32 i64) (result i32) {long} local.get 0)
            (func $caller {calls}))"
    );
    let module = rewrite(&wat::parse_str(text).unwrap(), &[]).unwrap().module;
    assert_eq!(
        instructions(&module, 0)[..2],
        ["LocalGet { local_index: 0 }", "LocalGet { local_index: 1 }"]
    );
}

/// Returns the instructions of a function of the module's own.
fn instructions(wasm: &[u8], function: usize) -> Vec<String> {
    let mut bodies = Parser::new(0)
        .parse_all(wasm)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
    let body = bodies.nth(function).unwrap();
    let operators = body.get_operators_reader().unwrap().into_iter();
    operators
        .map(|operator| format!("{:?}", operator.unwrap()))
        .collect()
}

/// Returns the number of a module's functions after equal ones were merged.
fn folded(functions: &str) -> usize {
    let wasm = wat::parse_str(format!("(module {functions})")).unwrap();
    let wasm = fold::fold(&wasm).unwrap();
    let features = WasmFeatures::default();
    Validator::new_with_features(features)
        .validate_all(&wasm)
        .unwrap();
    let bodies = Parser::new(0)
        .parse_all(&wasm)
        .filter(|payload| matches!(payload, Ok(Payload::CodeSectionEntry(_))));
    bodies.count()
}

#[test]
fn equal_functions_become_one_and_others_stay_apart() {
    for (functions, expected) in [
        ("(func (result i32) i32.const 1) (func (result i32) i32.const 1)", 1),
        ("(func (result i32) i32.const 1) (func (result i32) i32.const 2)", 2),
        ("(func (result i32) i32.const 1) (func (param i32) (result i32) i32.const 1)", 2),
        ("(func (local i32)) (func (local i64))", 2),
        // Equal where their callees are, which come before or after them, or are they themselves.
        ("(func $a nop) (func $b nop) (func call $a) (func call $b)", 2),
        ("(func call $a) (func call $b) (func $a nop) (func $b nop)", 2),
        ("(func $a nop) (func $b nop nop) (func call $a) (func call $b)", 4),
        ("(func $a call $b) (func $b call $a)", 1),
        ("(func $a call $b) (func $b call $c) (func $c nop)", 3),
        // Imported functions are not equal.
        (
            "(import \"env\" \"a\" (func $a)) (import \"env\" \"b\" (func $b)) (func call $a) (func call $b)",
            2,
        ),
    ] {
        assert_eq!(folded(functions), expected, "{functions}");
    }
}

#[test]
fn what_refers_to_a_merged_function_refers_to_the_one_that_is_left() {
    let wasm = wat::parse_str(
        "(module
            (table 2 2 funcref)
            (elem (i32.const 0) func $first $second)
            (func $other nop)
            (func $first (result i32) i32.const 1)
            (func $second (result i32) i32.const 1)
            (func (export \"last\") (result i32) call $second))",
    )
    .unwrap();
    let expected = wat::parse_str(
        "(module
            (table 2 2 funcref)
            (elem (i32.const 0) func $first $first)
            (func $other nop)
            (func $first (result i32) i32.const 1)
            (func (export \"last\") (result i32) call $first))",
    )
    .unwrap();
    let printed = |wasm: &[u8]| {
        let payloads = Parser::new(0).parse_all(wasm).map(Result::unwrap);
        let sections = payloads.filter_map(|payload| payload.as_section());
        let sections = sections.filter(|(id, _)| *id != 0);
        let bytes =
            sections.map(|(_, range)| wasm[range.start as usize..range.end as usize].to_vec());
        bytes.collect::<Vec<_>>()
    };
    assert_eq!(printed(&fold::fold(&wasm).unwrap()), printed(&expected));
}
