//! The few instructions that we put before libseccomp's.

use super::profile::Verdict;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    value: u32,
}

/// Its size.
pub const INSTRUCTION: usize = 8;
/// BPF_MAXINSNS: the kernel refuses longer programs.
pub const MOST_INSTRUCTIONS: usize = 4096;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// The first number at which all architectures that we know count alike.
pub const FIRST_COMMON: u32 = 424;
/// Set in the number of a call by x32's ABI, whose architecture is x86_64's.
const X32_BIT: u32 = 0x4000_0000;
/// Numbers that only x32 has, far above all others.
const X32_FIRST: u32 = 512;
const X32_LAST: u32 = 547;

/// What the prologue decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prologue {
    /// AUDIT_ARCH_* of the architectures for which it decides anything.
    pub architectures: Vec<u32>,
    /// Is x32 among them?
    pub has_x32: bool,
    /// System calls that libseccomp does not know, at or above [`FIRST_COMMON`].
    pub verdicts: Vec<(u32, Verdict)>,
    /// The highest number that the profile knows; above it, there is no such call.
    pub unknown_above: Option<u32>,
}

impl Prologue {
    /// Its bytes, to be followed by the rest of the filter.
    #[expect(clippy::expect_used, reason = "impossible, as the text says")]
    pub fn bytes(&self) -> Vec<u8> {
        if self.verdicts.is_empty() && self.unknown_above.is_none() {
            return Vec::new();
        }
        // Lowest first, so that a jump's distance to the end stays below 256: two for each verdict, and a dozen.
        let mut program = Vec::with_capacity(2 * self.verdicts.len() + 16);
        program.push(load(ARCHITECTURE));
        for (index, architecture) in self.architectures.iter().enumerate() {
            let left = self.architectures.len() - 1 - index;
            // To the first instruction behind the jump that follows the list.
            program.push(if_equal(*architecture, left as u8 + 1, 0));
        }
        program.push(TO_END);
        program.push(load(NUMBER));
        if self.has_x32 {
            program.push(Instruction { code: 0x54, if_true: 0, if_false: 0, value: !X32_BIT });
            program.push(if_at_least(X32_LAST + 1, 1, 0));
            program.push(if_at_least(X32_FIRST, END, 0));
        } else {
            program.push(if_at_least(X32_BIT, END, 0));
        }
        program.push(if_at_least(FIRST_COMMON, 0, END));
        for (number, verdict) in &self.verdicts {
            program.push(if_equal(*number, 0, 1));
            program.push(give(verdict.0));
        }
        if let Some(last) = self.unknown_above {
            program.push(if_at_least(last + 1, 0, 1));
            program.push(give(Verdict::NO_SUCH_CALL.0));
        }
        let length = program.len();
        for (index, instruction) in program.iter_mut().enumerate() {
            let distance = length - 1 - index;
            if *instruction == TO_END {
                instruction.value = distance as u32;
                continue;
            }
            for jump in [&mut instruction.if_true, &mut instruction.if_false] {
                if *jump == END {
                    *jump = u8::try_from(distance).expect("the prologue is far shorter than a jump");
                }
            }
        }
        program.iter().flat_map(|instruction| instruction.bytes()).collect()
    }
}

/// A distance that is filled in when the length is known.
const END: u8 = u8::MAX;
const TO_END: Instruction = Instruction { code: 0x05, if_true: 0, if_false: 0, value: u32::MAX };

fn load(offset: u32) -> Instruction {
    Instruction { code: 0x20, if_true: 0, if_false: 0, value: offset }
}

fn if_equal(value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code: 0x15, if_true, if_false, value }
}

fn if_at_least(value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code: 0x35, if_true, if_false, value }
}

fn give(verdict: u32) -> Instruction {
    Instruction { code: 0x06, if_true: 0, if_false: 0, value: verdict }
}

impl Instruction {
    fn bytes(self) -> [u8; INSTRUCTION] {
        let mut bytes = [0; INSTRUCTION];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.if_true;
        bytes[3] = self.if_false;
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;

    /// What the program says about a call; `None` if it leaves it to what follows.
    fn run(program: &[u8], architecture: u32, number: u32) -> Option<u32> {
        let mut accumulator = 0;
        let mut at = 0;
        let instructions: Vec<&[u8]> = program.chunks(INSTRUCTION).collect();
        while let Some(bytes) = instructions.get(at) {
            let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
            let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            let jump = |is_true: bool| usize::from(if is_true { bytes[2] } else { bytes[3] });
            at += 1;
            match code {
                0x20 => accumulator = if value == NUMBER { number } else { architecture },
                0x54 => accumulator &= value,
                0x05 => at += value as usize,
                0x15 => at += jump(accumulator == value),
                0x35 => at += jump(accumulator >= value),
                0x06 => return Some(value),
                other => unreachable!("instruction {other:#x}"),
            }
        }
        assert_eq!(at, instructions.len(), "a jump leads behind the end");
        None
    }

    fn prologue(has_x32: bool) -> Vec<u8> {
        Prologue {
            architectures: vec![X86_64, I386],
            has_x32,
            verdicts: vec![(452, Verdict::ALLOW), (458, Verdict::ALLOW)],
            unknown_above: Some(466),
        }
        .bytes()
    }

    #[test]
    fn new_calls_are_decided_and_old_ones_left_alone() {
        let no_such_call = Some(Verdict::NO_SUCH_CALL.0);
        for has_x32 in [false, true] {
            let program = prologue(has_x32);
            for architecture in [X86_64, I386] {
                for (number, verdict) in [
                    (0, None),
                    (423, None),
                    (424, None),
                    (452, Some(Verdict::ALLOW.0)),
                    (453, None),
                    (458, Some(Verdict::ALLOW.0)),
                    (466, None),
                    (467, no_such_call),
                    (511, no_such_call),
                    (548, no_such_call),
                    (X32_BIT - 1, no_such_call),
                ] {
                    assert_eq!(run(&program, architecture, number), verdict, "{architecture:#x} {number}");
                }
            }
            assert_eq!(run(&program, 0xdead_beef, 452), None);
        }
    }

    #[test]
    fn x32_counts_only_where_it_is_allowed() {
        assert_eq!(run(&prologue(true), X86_64, X32_BIT | 452), Some(Verdict::ALLOW.0));
        assert_eq!(run(&prologue(true), X86_64, X32_BIT | 520), None);
        assert_eq!(run(&prologue(false), X86_64, X32_BIT | 452), None);
        assert_eq!(run(&prologue(false), X86_64, u32::MAX), None);
    }

    #[test]
    fn nothing_to_decide_is_no_code() {
        assert!(Prologue { architectures: vec![X86_64], ..Prologue::default() }.bytes().is_empty());
    }
}
