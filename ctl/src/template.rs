//! `--format`: the part of Go's templates that people use with docker and podman: `{{.Field}}`, `{{json .Field}}`,
//! `{{index .Labels "key"}}`, and a few functions of one value. Fields are found whatever their case.

use serde_json::Value;
use std::fmt::Write;

/// Functions of one value.
const FUNCTIONS: &str = "json, index, join, len, upper, lower";

/// What `--format` asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// One line for each thing.
    Template(Template),
}

impl Format {
    /// `table`, `json`, or a template, with `table ` in front for a header.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "table" | "" => Ok(Self::Table),
            "json" | "{{json .}}" => Ok(Self::Json),
            text if text.contains("{{") => Template::parse(text).map(Self::Template),
            _ => Err(format!("a format is table, json or a template such as '{{{{.Name}}}}'; got '{text}'")),
        }
    }

    /// A list of things; `table` is it for people.
    pub fn list(&self, records: &[Value], table: impl FnOnce() -> String) -> anyhow::Result<String> {
        match self {
            Self::Table => Ok(table()),
            Self::Json => Ok(format!("{}\n", serde_json::to_string_pretty(records)?)),
            Self::Template(template) => template.render_all(records).map_err(anyhow::Error::msg),
        }
    }
}

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// In columns under a header.
    header: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Value { function: Option<Function>, path: Vec<String> },
}

#[derive(Debug, Clone, PartialEq)]
enum Function {
    Json,
    Index(Vec<String>),
    Join(String),
    Len,
    Upper,
    Lower,
}

impl Template {
    /// Read a template; the error says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (header, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            if open > 0 {
                parts.push(Part::Text(unescape(&rest[..open])));
            }
            let after = &rest[open + 2..];
            let close = after.find("}}").ok_or_else(|| format!("'{{{{' without '}}}}' in '{text}'"))?;
            parts.push(action(after[..close].trim())?);
            rest = &after[close + 2..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(unescape(rest)));
        }
        Ok(Self { header, parts })
    }

    /// All records, a line for each.
    pub fn render_all(&self, records: &[Value]) -> Result<String, String> {
        let mut lines: Vec<String> = Vec::new();
        if self.header {
            lines.push(self.titles());
        }
        for record in records {
            lines.push(self.render(record)?);
        }
        let mut text = String::new();
        if self.header {
            for line in align(&lines) {
                let _ = writeln!(text, "{line}");
            }
        } else {
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
        Ok(text)
    }

    /// One record.
    pub fn render(&self, record: &Value) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value { function, path } => {
                    text.push_str(&apply(function.as_ref(), lookup(record, path)?)?);
                }
            }
        }
        Ok(text)
    }

    /// Does it ask for one of these fields, or for everything?
    pub fn wants(&self, fields: &[&str]) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Value { path, .. } => {
                path.first().is_none_or(|first| fields.iter().any(|field| field.eq_ignore_ascii_case(first)))
            }
        })
    }

    fn titles(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value { path, .. } => {
                    text.push_str(&path.last().map_or_else(String::new, |name| title(name)))
                }
            }
        }
        text
    }
}

/// `MemoryLimit` → `MEMORY LIMIT`.
fn title(name: &str) -> String {
    let mut text = String::new();
    let mut previous_is_small = false;
    for c in name.chars() {
        if c.is_uppercase() && previous_is_small {
            text.push(' ');
        }
        previous_is_small = c.is_lowercase();
        text.extend(c.to_uppercase());
    }
    text
}

/// Text between tabulators in columns.
fn align(lines: &[String]) -> Vec<String> {
    use unicode_width::UnicodeWidthStr;
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if index + 1 < row.len() {
                    line.push_str(&" ".repeat(widths[index].saturating_sub(cell.width()) + 3));
                }
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// docker reads `\t` and `\n` in a format, since a shell's quotes do not.
fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            result.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => result.push('\t'),
            Some('n') => result.push('\n'),
            Some('\\') => result.push('\\'),
            Some(other) => {
                result.push('\\');
                result.push(other);
            }
            None => result.push('\\'),
        }
    }
    result
}

fn action(text: &str) -> Result<Part, String> {
    let unknown = |what: &str| {
        format!(
            "'{what}' is not understood in '{{{{{text}}}}}'; a format has fields such as {{{{.Name}}}} and the functions {FUNCTIONS}"
        )
    };
    let words = words(text).ok_or_else(|| unknown(text))?;
    let mut words = words.iter().map(String::as_str);
    let first = words.next().ok_or_else(|| unknown(""))?;
    if first.starts_with('.') {
        return match words.next() {
            None => Ok(Part::Value { function: None, path: path(first) }),
            Some(extra) => Err(unknown(extra)),
        };
    }
    let (function, field) = match first {
        "index" => {
            let field = words.next().ok_or_else(|| unknown(first))?;
            let keys: Vec<String> = words.by_ref().map(str::to_owned).collect();
            if keys.is_empty() {
                return Err(format!(
                    "index needs a key in '{{{{{text}}}}}', such as {{{{index .Labels \"key\"}}}}"
                ));
            }
            (Function::Index(keys), field)
        }
        "join" => {
            let field = words.next().ok_or_else(|| unknown(first))?;
            (Function::Join(words.next().unwrap_or(" ").to_owned()), field)
        }
        name => {
            let function = match name {
                "json" => Function::Json,
                "len" => Function::Len,
                "upper" => Function::Upper,
                "lower" => Function::Lower,
                _ => return Err(unknown(name)),
            };
            (function, words.next().ok_or_else(|| unknown(name))?)
        }
    };
    match words.next() {
        Some(extra) => Err(unknown(extra)),
        None if field.starts_with('.') => Ok(Part::Value { function: Some(function), path: path(field) }),
        None => Err(unknown(field)),
    }
}

/// Words, some in double quotes; none if a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            found.push(quoted[..end].to_owned());
            rest = quoted[end + 1..].trim_start();
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Some(found)
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The value at a path. A first name that does not exist is a typing error; deeper down it may just be unset.
fn lookup<'a>(record: &'a Value, path: &[String]) -> Result<Option<&'a Value>, String> {
    let mut value = record;
    for (depth, name) in path.iter().enumerate() {
        let next = match value {
            Value::Object(fields) => fields.get(name).or_else(|| {
                fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }),
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        value = match (next, value) {
            (Some(next), _) => next,
            (None, Value::Object(fields)) if depth == 0 => {
                let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                return Err(format!("there is no field '{name}'; there are {}", known.join(", ")));
            }
            (None, _) => return Ok(None),
        };
    }
    Ok(Some(value))
}

fn apply(function: Option<&Function>, value: Option<&Value>) -> Result<String, String> {
    let Some(value) = value else { return Ok("<no value>".to_owned()) };
    Ok(match function {
        None => plain(value),
        Some(Function::Json) => value.to_string(),
        Some(Function::Upper) => plain(value).to_uppercase(),
        Some(Function::Lower) => plain(value).to_lowercase(),
        Some(Function::Len) => match value {
            Value::Array(items) => items.len().to_string(),
            Value::Object(fields) => fields.len().to_string(),
            Value::String(text) => text.len().to_string(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                return Err(format!("len of {value} has no meaning"));
            }
        },
        Some(Function::Join(separator)) => match value.as_array() {
            Some(items) => items.iter().map(plain).collect::<Vec<_>>().join(separator),
            None => plain(value),
        },
        Some(Function::Index(keys)) => {
            let mut found = Some(value);
            for key in keys {
                found = match found {
                    Some(Value::Object(fields)) => fields.get(key),
                    Some(Value::Array(items)) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
                    Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => None,
                };
            }
            found.map_or_else(String::new, plain)
        }
    })
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn record() -> Value {
        json!({"Name": "web", "OomKilled": false, "Pid": 7, "Command": ["sh", "-c"],
               "Labels": {"a.b": "c"}, "Spec": {"resources": {"memory": 5}}})
    }

    fn render(text: &str) -> Result<String, String> {
        Template::parse(text)?.render(&record())
    }

    #[test]
    fn fields_and_paths_are_filled_in_whatever_their_case() {
        assert_eq!(render("{{.Name}}: {{ .pid }}").unwrap(), "web: 7");
        assert_eq!(render("{{.OOMKilled}}").unwrap(), "false");
        assert_eq!(render("{{.Spec.resources.memory}}").unwrap(), "5");
        assert_eq!(render("{{.Spec.resources.cpus}}").unwrap(), "<no value>");
        assert_eq!(render("{{.Command.1}}").unwrap(), "-c");
    }

    #[test]
    fn functions_are_the_usual_ones() {
        assert_eq!(render("{{json .Command}}").unwrap(), r#"["sh","-c"]"#);
        assert_eq!(render("{{index .Labels \"a.b\"}}").unwrap(), "c");
        assert_eq!(render("{{index .Labels \"none\"}}").unwrap(), "");
        assert_eq!(render("{{join .Command \",\"}}").unwrap(), "sh,-c");
        assert_eq!(render("{{len .Command}}{{upper .Name}}").unwrap(), "2WEB");
        assert!(render("{{json .}}").unwrap().starts_with('{'));
    }

    #[test]
    fn escapes_are_read_and_a_table_is_aligned() {
        assert_eq!(render("{{.Name}}\\t{{.Pid}}").unwrap(), "web\t7");
        let template = Template::parse("table {{.OomKilled}}\\t{{.Name}}").unwrap();
        assert_eq!(template.render_all(&[record()]).unwrap(), "OOM KILLED   NAME\nfalse        web\n");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        assert!(render("{{.Nmae}}").unwrap_err().contains("Name"));
        for text in [
            "{{range .Command}}",
            "{{.Name",
            "{{}}",
            "{{foo .Name}}",
            "{{.Name x}}",
            "{{index .Labels}}",
            "{{index .Labels \"a}}",
        ] {
            assert!(render(text).is_err(), "{text}");
        }
        assert!(Format::parse("yaml").unwrap_err().contains("json"));
        assert_eq!(Format::parse("json").unwrap(), Format::Json);
    }

    #[test]
    fn what_it_wants_is_known_beforehand() {
        let wants = |text: &str| Template::parse(text).unwrap().wants(&["CPU", "Memory"]);
        assert!(wants("{{.Name}} {{.cpu}}") && wants("{{json .}}") && !wants("{{.Name}}"));
    }
}
