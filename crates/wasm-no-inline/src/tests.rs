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
    let mut found = Vec::new();
    let bodies = Parser::new(0)
        .parse_all(wasm)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
    let mut element = None;
    for operator in bodies
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
    // Functions 1 to 5 are elements 2 to 6.
    assert_eq!(calls(&rewritten.module), ["element 3", "element 3"]);
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
    assert_eq!(calls(&rewritten.module), ["element 6"]);
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
