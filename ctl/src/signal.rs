//! Signals by name and number.

/// Linux numbers on every architecture that wharf runs on (x86, Arm, RISC-V).
const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// What a C library leaves to programs begins here: the kernel's first two real-time signals are its own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal as users type it: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`.
pub fn parse(text: &str) -> Result<i32, String> {
    let wrong =
        || format!("a signal is a name such as TERM or SIGTERM, or a number from 1 to 64; got '{text}'");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "POLL" => "IO",
        name => name,
    };
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let offset = |rest: &str| {
        if rest.is_empty() { Some(0) } else { rest[1..].parse::<i32>().ok().filter(|n| *n >= 0) }
    };
    let number = if let Some(rest) =
        name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+'))
    {
        offset(rest).map(|n| RTMIN + n)
    } else if let Some(rest) =
        name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-'))
    {
        offset(rest).map(|n| RTMAX - n)
    } else {
        None
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number)).ok_or_else(wrong)
}

/// Checks a signal and keeps it as it was typed, for the spec.
pub fn checked(text: &str) -> Result<String, String> {
    parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals_are_read() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in
            ["", "0", "65", "-9", "FOO", "RTMIN+40", "RTMIN-1", "RTMAX+1", "SIG", "RTMINx", "RTMIN+-1"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
