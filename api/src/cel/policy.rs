//! The expressions of admission policies: variables that are made when asked for, typed results, one budget
//! (`k8s.io/apiserver/pkg/admission/plugin/cel/{compile,composition,condition}.go`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::admission::{Input, Options, environment};
use super::{Environment, Failure, ObjectType, Program, Scope, Type, Val, compile};

/// The most that all expressions of one binding may cost (`celconfig.RuntimeCELCostBudget`).
pub const BUDGET: u64 = 10_000_000;
/// What is said once it is spent.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A compiled expression with its text.
#[derive(Debug)]
pub struct Expression {
    /// As written.
    pub text: String,
    /// The error is upstream's detail: `compilation failed: ..`, `must evaluate to ..`.
    pub program: Result<Program, String>,
}

/// The variables of a policy, and the environment that they make.
#[derive(Debug)]
pub struct Variables {
    list: Vec<(String, Expression)>,
    fields: BTreeMap<String, (String, Type)>,
    base: Environment,
}

impl Expression {
    /// Compiles; an empty list of results takes any.
    pub fn compile(text: &str, environment: &Environment, results: &[Type]) -> Self {
        let made = compile(text, environment).map_err(|error| format!("compilation failed: {error}"));
        let program = made.and_then(|program| {
            let found = program.result();
            match results {
                [] => Ok(program),
                wanted if wanted.contains(found) => Ok(program),
                [one] => Err(format!("must evaluate to {one} but got {found}")),
                several => {
                    let names: Vec<String> = several.iter().map(ToString::to_string).collect();
                    Err(format!("must evaluate to one of [{}] but got {found}", names.join(" ")))
                }
            }
        });
        Self { text: text.to_owned(), program }
    }
}

impl Variables {
    /// Compiles `spec.variables`; each may name those before it. `makes` are the objects that expressions may make.
    pub fn compile(list: &[Value], options: Options, makes: &[&'static str]) -> Self {
        Self::within(list, environment(options).making(makes))
    }

    /// The same in an environment of the caller's own.
    pub fn within(list: &[Value], base: Environment) -> Self {
        let mut variables = Self { list: Vec::new(), fields: BTreeMap::new(), base };
        let text = |item: &Value, key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        for item in list {
            let name = text(item, "name");
            let expression = Expression::compile(&text(item, "expression"), &variables.environment(), &[]);
            let of = expression.program.as_ref().map_or(Type::DYN, |program| program.result().clone());
            variables.fields.insert(name.clone(), (name.clone(), of));
            variables.list.push((name, expression));
        }
        variables
    }

    /// What the policy's other expressions may name.
    pub fn environment(&self) -> Environment {
        let name = "kubernetes.variables".to_owned();
        let of = ObjectType { name, fields: self.fields.clone(), min_size: 2 };
        self.base.clone().with("variables", Type::Object(Arc::new(of)))
    }

    /// The same without `authorizer`, for messages.
    pub fn plain_environment(&self) -> Environment {
        self.environment().without("authorizer").without("authorizer.requestResource")
    }

    /// The expressions by name, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(String, Expression)> {
        self.list.iter()
    }
}

/// One binding's evaluation: variables are made once, all that is evaluated is paid from one budget.
pub struct Evaluation<'a> {
    input: Input<'a>,
    variables: &'a Variables,
    made: RefCell<BTreeMap<String, Result<Val<'a>, Failure>>>,
    spent: Cell<u64>,
}

impl<'a> Evaluation<'a> {
    /// With nothing spent.
    pub fn new(input: Input<'a>, variables: &'a Variables) -> Self {
        Self { input, variables, made: RefCell::default(), spent: Cell::new(0) }
    }

    /// The value of an expression; the error is upstream's text.
    pub fn evaluate(&self, expression: &'a Expression) -> Result<Val<'a>, String> {
        if self.spent.get() > BUDGET {
            return Err(OUT_OF_BUDGET.into());
        }
        let program = expression.program.as_ref().map_err(|error| format!("compilation error: {error}"))?;
        let (result, cost) = program.evaluate(self);
        self.spent.set(self.spent.get().saturating_add(cost));
        if self.spent.get() > BUDGET {
            return Err(OUT_OF_BUDGET.into());
        }
        result.map_err(|failure| format!("expression '{}' resulted in error: {failure}", expression.text))
    }

    fn made(&self, name: &str) -> Option<Result<Val<'a>, Failure>> {
        if let Some(known) = self.made.borrow().get(name) {
            return Some(known.clone());
        }
        let (_, expression) = self.variables.list.iter().find(|(known, _)| known == name)?;
        let result = match &expression.program {
            Ok(program) => {
                let (result, cost) = program.evaluate(self);
                self.spent.set(self.spent.get().saturating_add(cost));
                match self.spent.get() > BUDGET {
                    true => Err(Failure::Limit),
                    false => result,
                }
            }
            Err(error) => Err(Failure::error(error.clone())),
        };
        self.made.borrow_mut().insert(name.to_owned(), result.clone());
        Some(result)
    }
}

impl<'a> Scope<'a> for Evaluation<'a> {
    fn variable(&self, name: &str) -> Option<Result<Val<'a>, Failure>> {
        self.input.variable(name)
    }

    fn field(&self, variable: &str, field: &str) -> Option<Result<Val<'a>, Failure>> {
        match variable {
            "variables" => self.made(field),
            _ => self.input.field(variable, field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::{Input, Options};
    use super::{Evaluation, Expression, Type, Variables};
    use serde_json::json;

    #[test]
    fn variables_are_typed_and_made_once() {
        let listed = json!([
            {"name": "n", "expression": "object.spec.replicas"},
            {"name": "big", "expression": "variables.n > 3"},
            {"name": "broken", "expression": "object.none.x"},
        ]);
        let listed = listed.as_array().expect("a list");
        let variables = Variables::compile(listed, Options::default(), &["Object"]);
        let (object, request) = (json!({"spec": {"replicas": 5}}), json!({}));
        let input = Input::of(&object, &request);
        let environment = variables.environment();
        let expression = |text: &str| Expression::compile(text, &environment, &[Type::Bool]);
        let (big, unknown, broken) =
            (expression("variables.big"), expression("variables.none"), expression("variables.broken == 1"));
        let evaluation = Evaluation::new(input, &variables);
        assert!(evaluation.evaluate(&big).expect("a value").is_true());
        assert!(unknown.program.expect_err("unknown").contains("undefined field 'none'"));
        let want = "expression 'variables.broken == 1' resulted in error: no such key: none";
        assert_eq!(evaluation.evaluate(&broken).expect_err("an error"), want);
        let dynamic = Expression::compile("object.spec", &environment, &[Type::Bool]);
        assert_eq!(dynamic.program.expect_err("not a bool"), "must evaluate to bool but got dyn");
        let made = Expression::compile("Object{spec: Object.spec{replicas: variables.n + 1}}", &environment, &[]);
        let value = evaluation.evaluate(&made).expect("an object").to_json();
        assert_eq!(value, Ok(json!({"spec": {"replicas": 6}})));
    }
}
