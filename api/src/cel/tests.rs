//! Expressions by example.

use serde_json::{Value, json};

use super::{Authorize, Check, Decision, Environment, Failure, Subject, Type, Val, compile};

fn environment() -> Environment {
    Environment::default()
        .with("o", Type::DYN)
        .with("n", Type::Int)
        .with("s", Type::TEXT)
        .with("l", Type::list(Type::Int))
        .with("t", Type::object("T", [("a", Type::Int), ("name", Type::TEXT), ("when", Type::Timestamp)]))
}

/// The value of an expression as JSON, or its error after `!`.
fn value(expression: &str) -> Value {
    let object = json!({"a": {"b": [1, 2, 3], "c-d": "x"}, "n": null, "f": 1.5, "e": {}});
    let typed = json!({"a": 1, "name": "x", "when": "2024-01-02T03:04:05Z", "hidden": 1});
    let list = json!([1, 2, 3]);
    let program = match compile(expression, &environment()) {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    let of = |name: &str| environment().variable(name).cloned().unwrap_or(Type::DYN);
    let scope = [
        ("o", Val::of(&object, &Type::DYN)),
        ("n", Val::Int(3)),
        ("s", Val::text("hello")),
        ("l", Val::of(&list, &of("l"))),
        ("t", Val::of(&typed, &of("t"))),
    ];
    match program.evaluate(scope.as_slice()).0 {
        Ok(value) => value.to_json().unwrap_or_else(Value::String),
        Err(failure) => format!("!{failure}").into(),
    }
}

#[test]
fn values() {
    let cases = [
        ("1 + 2 * 3 - 4 / 2 % 3", json!(5)),
        ("-(-3) == 3 && !false", json!(true)),
        ("'a' + \"b\" + r'\\n' + '''c'''", json!("ab\\nc")),
        ("n > 2 ? 'big' : 'small'", json!("big")),
        ("o.a.b[1] + n", json!(5)),
        ("o.a['c-d']", json!("x")),
        ("has(o.a.x) || has(o.a.b)", json!(true)),
        ("o.n == null", json!(true)),
        ("o.f == 1.5 && 1 < 1.5 && dyn(1) == 1u", json!(true)),
        ("l.all(x, x > 0) && l.exists(x, x == 2) && l.exists_one(x, x == 3)", json!(true)),
        ("l.map(x, x * 2)", json!([2, 4, 6])),
        ("l.map(x, x > 1, x * 2)", json!([4, 6])),
        ("l.filter(x, x % 2 == 1)", json!([1, 3])),
        ("{'a': 1, 'b': 2}.map(k, k)", json!(["a", "b"])),
        ("l.transformList(i, v, i * v)", json!([0, 2, 6])),
        ("{'a': 1}.transformMap(k, v, v + 1)", json!({"a": 2})),
        ("2 in l && 'a' in o", json!(true)),
        ("size(l) + s.size() + size({'a': 1})", json!(9)),
        ("s.substring(1, 3) + s.charAt(0) + s.upperAscii()", json!("elhHELLO")),
        ("'a,b,c'.split(',').join('-')", json!("a-b-c")),
        ("s.matches('^h.*o$') && s.find('l+') == 'll'", json!(true)),
        ("'%s is %d, %.2f, %x'.format([dyn('a'), 3, 1.005, 255])", json!("a is 3, 1.00, ff")),
        ("'%s'.format([[dyn(1), 'a', {'k': true}]])", json!("[1, a, {k: true}]")),
        ("[3, 1, 2].sort() == [1, 2, 3] && [1, 1].distinct() == [1] && [1, 2].sum() == 3", json!(true)),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1], [1, 1]) && !sets.intersects([1], [2])", json!(true)),
        ("t.when.getFullYear()", json!(2024)),
        ("t.when + duration('24h') > t.when && duration('90m').getHours() == 1", json!(true)),
        ("timestamp('2024-01-01T00:00:00Z').getDayOfWeek('+02:00')", json!(1)),
        ("quantity('1Ki').isGreaterThan(quantity('1k')) && quantity('2').add(1).asInteger() == 3", json!(true)),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && ip('::1').family() == 6 && isIP('1.2.3')", json!(false)),
        ("url('https://a.b:80/c?d=e').getPort() + url('https://a.b:80/c?d=e').getQuery()['d'][0]", json!("80e")),
        ("semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true)", json!(true)),
        ("format.dns1123Label().validate('Aa').hasValue() && !format.named('x').hasValue()", json!(true)),
        ("o.?x.orValue('none') + o.?a.?b[0].optMap(v, string(v)).orValue('-')", json!("none1")),
        ("[?o.?x, ?optional.of(1)]", json!([1])),
        ("type(n) == int && type(o.a) == map && type([]) == list", json!(true)),
        ("int('12') + int(3.7) + int(2u)", json!(17)),
        ("string(b'abc') + string(1) + string(1.5)", json!("abc11.5")),
        ("t.a == 1 || t.a / 0 == 1", json!(true)),
        ("false || true", json!(true)),
        ("1 / 0 == 1 || true", json!(true)),
        ("// a comment\n true", json!(true)),
        ("0x10 + 1", json!(17)),
        ("9223372036854775807 + 1", json!("!integer overflow")),
        ("1 / (n - 3)", json!("!division by zero")),
        ("o.x.y", json!("!no such key: x")),
        ("l[7]", json!("!index out of bounds: 7")),
        ("o.f + 'a'", json!("!no such overload")),
        ("o.f && true", json!("!no such overload")),
        ("'a'.substring(3)", json!("!index out of range: 3")),
    ];
    let wrong: Vec<_> = cases.into_iter().filter(|(e, want)| value(e) != *want).map(|(e, _)| (e, value(e))).collect();
    assert_eq!(wrong, []);
}

#[test]
fn faults_are_cel_gos() {
    let cases = [
        ("x.y", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x.y\n | ^"),
        ("t.b == 1", "ERROR: <input>:1:2: undefined field 'b'\n | t.b == 1\n | .^"),
        (
            "n == 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | n == 'a'\n | ..^",
        ),
        (
            "s.startsWith(1)",
            "ERROR: <input>:1:13: found no matching overload for 'startsWith' applied to 'string.(int)'\n \
             | s.startsWith(1)\n | ............^",
        ),
        ("s.nope()", "ERROR: <input>:1:7: undeclared reference to 'nope' (in container '')\n | s.nope()\n | ......^"),
        (
            "n.all(x, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or \
             dynamic)\n | n.all(x, true)\n | ^",
        ),
        ("n.x", "ERROR: <input>:1:2: type 'int' does not support field selection\n | n.x\n | .^"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("import == 1", "ERROR: <input>:1:1: reserved identifier: import\n | import == 1\n | ^"),
        ("(1", "ERROR: <input>:1:3: Syntax error: missing ')' at '<EOF>'\n | (1\n | ..^"),
        ("'a", "ERROR: <input>:1:1: Syntax error: token recognition error at: ''a'\n | 'a\n | ^"),
        ("has(n)", "ERROR: <input>:1:4: invalid argument to has() macro\n | has(n)\n | ...^"),
    ];
    for (expression, want) in cases {
        assert_eq!(compile(expression, &environment()).map(|_| ()).expect_err(expression), want, "{expression}");
    }
    assert!(compile("1 +", &environment()).expect_err("cut off").contains("Syntax error: mismatched input '<EOF>'"));
}

#[test]
fn nothing_runs_or_nests_without_end() {
    let nested = "[1,2,3,4,5,6,7,8,9,10]".to_owned();
    let mut expression = "true".to_owned();
    for _ in 0..9 {
        expression = format!("{nested}.all(x, {expression})");
    }
    let program = compile(&expression, &environment()).expect("it compiles");
    let none: [(&str, Val<'_>); 0] = [];
    assert_eq!(program.evaluate(none.as_slice()).0.expect_err("too long"), Failure::Limit);
    for deep in ["(".repeat(10_000), "-".repeat(3) + &"[".repeat(10_000), format!("1{}", "+1".repeat(5_000))] {
        let error = compile(&deep, &environment()).map(|_| ()).expect_err("too deep");
        assert!(error.contains("expression recursion limit exceeded: 250"), "{error}");
    }
    let long = format!("'{}' == ''", "a".repeat(100_000));
    assert!(compile(&long, &environment()).map(|_| ()).expect_err("too long").contains("exceeds limit"));
    let none: [(&str, Val<'_>); 0] = [];
    let deep = compile(&format!("1{}", "+1".repeat(240)), &environment()).expect("deep enough");
    assert_eq!(deep.evaluate(none.as_slice()).0.expect("a value").to_json(), Ok(json!(241)));
    // Terms of && and || stand side by side however many they are.
    let wide = format!("true{}", " && true".repeat(5_000));
    assert!(compile(&wide, &environment()).is_ok());
}

struct OnlyPods;

impl Authorize for OnlyPods {
    fn authorize(&self, check: &Check) -> Decision {
        Decision { allowed: check.resource == "pods" && check.verb == "get", ..Decision::default() }
    }
}

#[test]
fn authorization_is_asked_for() {
    let environment = Environment::default().with("authorizer", super::declare::opaque("authorizer"));
    for (resource, want) in [("pods", true), ("nodes", false)] {
        let expression = format!("authorizer.group('').resource('{resource}').namespace('d').check('get').allowed()");
        let program = compile(&expression, &environment).expect("it compiles");
        let scope = [("authorizer", Val::Authorizer(Subject::new(&OnlyPods).into()))];
        let (result, cost) = program.evaluate(scope.as_slice());
        assert_eq!(result.expect("a value").is_true(), want);
        assert!(cost > 350_000, "{cost}");
    }
}
