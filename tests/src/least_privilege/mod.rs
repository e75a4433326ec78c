//! The policies that fleet-bootstrap renders, before the evaluator of the sandbox's gateway: what they
//! allow, that every statement is needed, and what they do not allow.

mod node;
mod operator;

use fleet_bootstrap::{
    desired::{self, Desired},
    spec::FleetFile,
};
use fleet_sandbox::{
    access::{Call, Facts, Tags, TemplateFacts, requests},
    policy::{Decision, Policy, Request, decide},
};
use serde_json::{Value, json};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "eu-central-1";

/// The environment `dev` of a file.
fn desired(file: &str) -> Desired {
    let spec = FleetFile::new("fleet.toml", file).spec("dev");
    desired::build(&spec.expect("a valid file")).expect("resources")
}

/// What a program asks of AWS, and the statement that allows it.
#[derive(Debug)]
struct Step {
    statement: &'static str,
    call: &'static str,
    asks: Vec<Request>,
}

/// A call through an SDK.
fn call(facts: &dyn Facts, statement: &'static str, call: &'static str, body: Value) -> Step {
    let (service, operation) = call.split_once(':').expect("service:Operation");
    let asked = Call {
        service: service.to_owned(),
        operation: operation.to_owned(),
        body,
    };
    Step {
        statement,
        call,
        asks: requests(&asked, facts).expect("a call that the gateway knows"),
    }
}

/// What a service asks in the name of a caller whose calls do not come by here.
fn unseen(statement: &'static str, action: &'static str, resource: &str) -> Step {
    Step {
        statement,
        call: action,
        asks: vec![Request::new(action, resource)],
    }
}

/// Calls that a policy does not allow.
fn refused<'s>(policy: &Value, steps: &'s [Step]) -> Vec<&'s str> {
    let policy = Policy::read(policy).expect("a policy that the gateway reads");
    let allowed = |request: &Request| decide([&policy], request) == Decision::Allowed;
    let refused = steps.iter().filter(|step| !step.asks.iter().all(allowed));
    refused.map(|step| step.call).collect()
}

/// Every step passes, and without any one statement just those fail that name it.
fn each_statement_is_needed(policy: &Value, steps: &[Step]) {
    assert_eq!(refused(policy, steps), [""; 0]);
    let statements = policy["Statement"].as_array().expect("statements");
    for (index, statement) in statements.iter().enumerate() {
        let mut without = policy.clone();
        let rest = without["Statement"].as_array_mut().expect("statements");
        rest.remove(index);
        let sid = statement["Sid"].as_str().expect("a Sid");
        let needing = steps.iter().filter(|step| step.statement == sid);
        let needing: Vec<&str> = needing.map(|step| step.call).collect();
        assert!(!needing.is_empty(), "no call needs {sid}");
        assert_eq!(refused(&without, steps), needing, "without {sid}");
    }
}

fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}")
}
