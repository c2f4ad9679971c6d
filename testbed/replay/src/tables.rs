//! The tables of a function in the emulated AWS, for cases with items.
//!
//! `testbed/emulator.py` makes them, as template.yaml declares them. It starts when a test of this process first needs it, and
//! ends with the process. Each call of [`settings`](crate::settings()) gives a function tables of its own, in another account
//! of the emulator, so that tests don't see each other's items.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::{Map, Value, json};

use crate::root;

/// Items by the logical id of their table in template.yaml. An item is JSON as it is: DynamoDB's types are made of it.
pub(crate) type Items = BTreeMap<String, Vec<Map<String, Value>>>;

/// Set to the account for a function that has such tables.
const ACCOUNT: &str = "TESTBED_ACCOUNT";

const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// The emulator, and how many accounts it has.
static EMULATOR: Mutex<Option<(Child, BufReader<ChildStdout>, u64)>> = Mutex::new(None);

/// Makes the tables in a new account. Returns the environment variables with which `function` uses them.
pub(crate) fn variables(function: &str) -> BTreeMap<String, String> {
    let mut emulator = EMULATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let (process, lines, accounts) = emulator.get_or_insert_with(|| {
        let python = root().join(".venv/bin/python");
        let mut command = Command::new(&python);
        command.arg("testbed/emulator.py").arg("--accounts").current_dir(root());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.unwrap_or_else(|error| {
            panic!(
                "{}: {error}; `make .venv/local` installs the emulator, which cases with items need",
                python.display()
            )
        });
        let lines = BufReader::new(process.stdout.take().expect("a piped standard output"));
        (process, lines, 0)
    });
    *accounts += 1;
    let account = format!("{accounts:012}");
    writeln!(process.stdin.as_mut().expect("a piped standard input"), "{account}").expect("an emulator that listens");
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line of the emulator");
    assert!(!line.is_empty(), "testbed/emulator.py ended; what it said is above");
    let mut all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("testbed/emulator.py: {error}: {line}"));
    let mut variables = all.remove(function).unwrap_or_else(|| {
        panic!("{function} has cases with items, but no permission on a table in functions/{function}/Cargo.toml")
    });
    variables.insert(ACCOUNT.to_owned(), account);
    variables
}

/// The tables of a function, or none if no case of it has items.
pub struct Tables(Option<Emulated>);

struct Emulated {
    address: String,
    account: String,
}

impl Tables {
    /// The tables of a function with these [`settings`](crate::settings()).
    pub fn of(settings: &[(String, String)]) -> Self {
        // The last one counts.
        let setting = |name| settings.iter().rev().find(|(setting, _)| setting == name).map(|(_, value)| value.clone());
        let emulated = setting(ACCOUNT).zip(setting(ENDPOINT));
        Self(emulated.map(|(account, endpoint)| Emulated { address: endpoint.replace("http://", ""), account }))
    }

    /// Those of this process, if it has a function's settings.
    pub(crate) fn of_this_process() -> Self {
        Self::of(&env::vars().collect::<Vec<_>>())
    }

    /// Replaces the items of all tables.
    pub(crate) fn set(&self, items: &Items) {
        let Some(emulated) = &self.0 else { return };
        for name in emulated.call("ListTables", &json!({}))["TableNames"].as_array().into_iter().flatten() {
            let described = emulated.call("DescribeTable", &json!({ "TableName": name }));
            let keys = described["Table"]["KeySchema"].as_array().into_iter().flatten();
            let keys: Vec<&str> = keys.filter_map(|key| key["AttributeName"].as_str()).collect();
            for item in emulated.scan(name) {
                let key: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), item[*key].clone())).collect();
                emulated.call("DeleteItem", &json!({ "TableName": name, "Key": key }));
            }
        }
        for (table, items) in items {
            for item in items {
                let item: Map<String, Value> = item.iter().map(|(name, value)| (name.clone(), typed(value))).collect();
                emulated.call("PutItem", &json!({ "TableName": table, "Item": item }));
            }
        }
    }

    /// Compares the tables' items with `expected`: of each table in it, there are as many as it lists, and each of those in the
    /// list is there with at least its members.
    pub(crate) fn check(&self, expected: &Items) -> Result<(), String> {
        let Some(emulated) = &self.0 else { return Ok(()) };
        for (table, expected) in expected {
            let there: Vec<Map<String, Value>> = emulated
                .scan(&json!(table))
                .iter()
                .map(|item| item.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
                .collect();
            let is_missing = |wanted: &Map<String, Value>| {
                !there.iter().any(|item| wanted.iter().all(|(name, value)| item.get(name) == Some(value)))
            };
            if there.len() != expected.len() || expected.iter().any(is_missing) {
                return Err(format!("{table}: expected {}, got {}", json!(expected), json!(there)));
            }
        }
        Ok(())
    }
}

impl Emulated {
    fn scan(&self, table: &Value) -> Vec<Map<String, Value>> {
        let mut answer = self.call("Scan", &json!({ "TableName": table, "ConsistentRead": true }));
        serde_json::from_value(answer["Items"].take()).expect("items")
    }

    /// The emulator takes the account from the credentials, and checks no signature.
    fn call(&self, operation: &str, parameters: &Value) -> Value {
        let Self { address, account } = self;
        let body = parameters.to_string();
        let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: DynamoDB_20120810.{operation}\r\nauthorization: AWS4-HMAC-SHA256 \
             Credential={account}/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        let done = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
        done.unwrap_or_else(|error| panic!("{operation}: {error}"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{operation}: {answer}"));
        assert!(head.starts_with("HTTP/1.1 200"), "{operation} {parameters}: {body}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{operation}: {error}: {body}"))
    }
}

/// An attribute's value of the type that its JSON has.
fn typed(value: &Value) -> Value {
    match value {
        Value::Null => json!({ "NULL": true }),
        Value::Bool(value) => json!({ "BOOL": value }),
        Value::Number(value) => json!({ "N": value.to_string() }),
        Value::String(value) => json!({ "S": value }),
        Value::Array(values) => json!({ "L": values.iter().map(typed).collect::<Vec<_>>() }),
        Value::Object(members) => {
            json!({ "M": members.iter().map(|(name, value)| (name.clone(), typed(value))).collect::<Map<_, _>>() })
        }
    }
}

/// An attribute's value as JSON. Bytes stay in base64, and a set becomes a list.
fn plain(value: &Value) -> Value {
    let number = |text: &Value| text.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let list = |values: &Value, each: &dyn Fn(&Value) -> Value| {
        values.as_array().into_iter().flatten().map(each).collect::<Vec<_>>().into()
    };
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else { return Value::Null };
    match kind.as_str() {
        "NULL" => Value::Null,
        "N" => number(value),
        "L" => list(value, &plain),
        "NS" => list(value, &number),
        "M" => {
            let members = value.as_object().into_iter().flatten();
            Value::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_types() {
        let value = json!({ "list": [1, 2.5, "text", null, true], "map": { "empty": "" } });
        assert_eq!(plain(&typed(&value)), value);
        assert_eq!(typed(&json!(7)), json!({ "N": "7" }));
        assert_eq!(plain(&json!({ "NS": ["1"] })), json!([1]));
        assert_eq!(plain(&json!({ "B": "AA==" })), json!("AA=="));
    }
}
