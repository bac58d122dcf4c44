//! S-expressions, the form of `list --long` and of a dry run.
//!
//! Any value that serialises to JSON can be written: an object becomes `(key value)` pairs, a
//! list of scalars `(key a b)`, a list of objects one `(key (...))` per member, `null` is left
//! out. So a new field of a domain shows up here without a change.

use serde_json::Value;

/// Deepest nesting that is written; a configuration is far from it.
const DEEPEST: usize = 32;

/// Writes `value` as one expression that begins with `head`.
pub fn write(head: &str, value: &Value) -> String {
    let mut text = String::new();
    node(&mut text, head, value, 0);
    text.push('\n');
    text
}

fn node(text: &mut String, head: &str, value: &Value, depth: usize) {
    let indent = "    ".repeat(depth);
    text.push_str(&format!("{indent}({head}"));
    if depth < DEEPEST {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    member(text, key, field, depth + 1);
                }
                text.push_str(&format!("\n{indent}"));
            }
            Value::Array(items) => {
                for item in items {
                    match item {
                        Value::Object(_) | Value::Array(_) => {
                            member(text, "item", item, depth + 1);
                        }
                        scalar => text.push_str(&format!(" {}", atom(scalar))),
                    }
                }
            }
            scalar => text.push_str(&format!(" {}", atom(scalar))),
        }
    }
    text.push(')');
}

/// One field; a list of objects becomes one expression per object.
fn member(text: &mut String, key: &str, value: &Value, depth: usize) {
    match value {
        Value::Null => {}
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                text.push('\n');
                node(text, key, item, depth);
            }
        }
        _ => {
            text.push('\n');
            node(text, key, value, depth);
        }
    }
}

fn atom(value: &Value) -> String {
    match value {
        Value::Bool(set) => u8::from(*set).to_string(),
        Value::String(word) => quote(word),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => "()".to_owned(),
    }
}

/// Words with blanks, brackets or quotes are put in single quotes.
fn quote(word: &str) -> String {
    let plain = |symbol: char| !symbol.is_whitespace() && !"()'\"\\".contains(symbol);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::from("'");
    for symbol in word.chars() {
        match symbol {
            '\'' | '\\' => text.extend(['\\', symbol]),
            '\n' => text.push_str("\\n"),
            _ => text.push(symbol),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_lists_and_words() {
        let value = json!({
            "domid": 5, "name": "serv1", "args": "root=/dev/xvda1 ro 'x'", "none": null,
            "paused": false, "jail": ["seccomp", "userns"], "vif": [{"mac": "a"}, {"mac": "b"}],
        });
        let expected = r"(domain
    (args 'root=/dev/xvda1 ro \'x\'')
    (domid 5)
    (jail seccomp userns)
    (name serv1)
    (paused 0)
    (vif
        (mac a)
    )
    (vif
        (mac b)
    )
)
";
        assert_eq!(write("domain", &value), expected);
    }

    #[test]
    fn brackets_balance_whatever_comes() {
        let value = json!({"a": [[1, 2], {"b": "("}], "c": "", "d": {"e": {}}});
        let text = write("domain", &value);
        let outside: String = text.split('\'').step_by(2).collect();
        assert_eq!(outside.matches('(').count(), outside.matches(')').count(), "{text}");
    }
}
