//! `KEY=VALUE` in its forms: options, and files with one on each line.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environment from `--env-file` and `--env`, in this order, so that an option wins over a file.
/// A key without a value takes ctl's own, and is left out if there is none, as in docker.
pub fn environment(files: &[PathBuf], options: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for file in files {
        for (number, line) in lines(file)? {
            add_variable(&mut found, &line).with_context(|| format!("{}: line {number}", file.display()))?;
        }
    }
    for option in options {
        add_variable(&mut found, option).with_context(|| format!("--env '{}'", option.escape_debug()))?;
    }
    Ok(found)
}

/// Labels from `--label-file` and `--label`. A key without a value has an empty one.
pub fn labels(files: &[PathBuf], options: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut add = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            bail!("there is no key before '='; a label is KEY=VALUE or KEY");
        }
        found.insert(key.to_owned(), value.to_owned());
        Ok(())
    };
    for file in files {
        for (number, line) in lines(file)? {
            add(&line).with_context(|| format!("{}: line {number}", file.display()))?;
        }
    }
    for option in options {
        add(option).with_context(|| format!("--label '{}'", option.escape_debug()))?;
    }
    Ok(found)
}

/// `KEY=VALUE` where both are needed, as for `--sysctl` and `--log-opt`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("it must be KEY=VALUE; got '{text}'")),
    }
}

fn add_variable(found: &mut BTreeMap<String, String>, text: &str) -> anyhow::Result<()> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        bail!("there is no name before '='; a variable is KEY=VALUE, or KEY to take ctl's own");
    }
    if key.contains(char::is_whitespace) {
        bail!("the name '{}' contains white space", key.escape_debug());
    }
    let value = match value {
        Some(value) => Some(value),
        None => match std::env::var(key) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                bail!("the value of {key} in ctl's own environment is not UTF-8")
            }
        },
    };
    if let Some(value) = value {
        found.insert(key.to_owned(), value);
    }
    Ok(())
}

/// The lines of a file that say something, with their numbers: comments and empty ones are left out, blanks in
/// front are cut off, and so is a byte order mark. Quotes and `$` have no meaning, as in docker.
fn lines(file: &Path) -> anyhow::Result<Vec<(usize, String)>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let meaningful = |line: &&str| !line.is_empty() && !line.starts_with('#');
    Ok(text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_start()))
        .filter(|(_, line)| meaningful(line))
        .map(|(number, line)| (number, line.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("wharf-ctl-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn environment_file_follows_docker_and_options_win() {
        let path = file(
            "env",
            "\u{feff}# comment\n\n  A=1\nB=two words \"quoted\" $HOME\r\nWHARF_CTL_SURELY_UNSET\nPATH\nC=\n",
        );
        let found = environment(std::slice::from_ref(&path), &["A=2".into(), "D=x=y".into()]).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(found["A"], "2");
        assert_eq!(found["B"], "two words \"quoted\" $HOME");
        assert_eq!(found["C"], "");
        assert_eq!(found["D"], "x=y");
        assert_eq!(found["PATH"], std::env::var("PATH").unwrap());
        assert!(!found.contains_key("WHARF_CTL_SURELY_UNSET"));
    }

    #[test]
    fn wrong_lines_are_named_by_file_and_number() {
        let path = file("bad", "A=1\nB C=2\n");
        let error = format!("{:#}", environment(std::slice::from_ref(&path), &[]).unwrap_err());
        std::fs::remove_file(path).unwrap();
        assert!(error.contains("line 2") && error.contains("white space"), "{error}");
        assert!(environment(&[], &["=x".into()]).is_err());
        assert!(environment(&["/does/not/exist".into()], &[]).is_err());
    }

    #[test]
    fn label_without_a_value_is_empty() {
        let found = labels(&[], &["a".into(), "b=c".into()]).unwrap();
        assert_eq!((found["a"].as_str(), found["b"].as_str()), ("", "c"));
        assert!(labels(&[], &["=c".into()]).is_err());
    }
}
