//! Checking a receipt by running its job again.

use std::fmt::Display;

use isobit_tensor::Hash;

use crate::{FORMAT, Outcome, PROFILE, SignedReceipt};

/// Whoever can run the job of a receipt again: the runtime, with the model and the inputs at hand.
///
/// Each answer is found out anew, from the objects themselves and never from the receipt. An error is what stopped it.
pub trait ReExecute {
    /// What stops it.
    type Error: Display;

    /// The content address of the model at hand, computed from its bytes.
    fn model(&mut self) -> Result<Hash, Self::Error>;

    /// [`crate::tensors_root`] of the inputs at hand, in the model's order.
    fn inputs(&mut self) -> Result<Hash, Self::Error>;

    /// Runs the model on the inputs with this seed.
    fn run(&mut self, seed: u64) -> Result<Executed, Self::Error>;
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Output root, or the failure's code.
    pub outcome: Outcome,
    /// Metered cost; 0 for a failure.
    pub cost: u64,
    /// Why it failed, for people; empty if it did not.
    pub why: String,
}

/// What a receipt says that can be checked, in the order of checking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Field {
    /// The file is a receipt of a known format and of the profile that this version computes.
    Format,
    /// The named node has signed it.
    Signature,
    /// The model's address.
    Model,
    /// The input root.
    Inputs,
    /// The output root or failure code.
    Outcome,
    /// The metered cost.
    Cost,
}

impl Field {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Field::Format => "format",
            Field::Signature => "signature",
            Field::Model => "model",
            Field::Inputs => "inputs",
            Field::Outcome => "outputs",
            Field::Cost => "cost",
        }
    }

    const ALL: [Field; 6] =
        [Field::Format, Field::Signature, Field::Model, Field::Inputs, Field::Outcome, Field::Cost];
}

/// A field, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub field: Field,
    /// Whether what the receipt says was found to be so. What could not be checked does not hold.
    pub holds: bool,
    /// What was found, or why it does not hold.
    pub detail: String,
}

/// What checking a receipt came to: one finding for every [`Field`], none left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order of checking.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether every field holds.
    pub fn holds(&self) -> bool {
        self.findings.iter().all(|f| f.holds)
    }

    fn add(&mut self, field: Field, holds: bool, detail: String) {
        self.findings.push(Finding { field, holds, detail });
    }

    /// Compares what the receipt says with what was found.
    fn compare(&mut self, field: Field, claimed: String, found: Result<String, String>) {
        match found {
            Ok(found) if found == claimed => self.add(field, true, found),
            Ok(found) => self.add(field, false, format!("the receipt says {claimed}, found {found}")),
            Err(why) => self.add(field, false, format!("not checked: {why}")),
        }
    }
}

/// Checks a receipt file: see [`verify`]. For a file that is no receipt every field fails, the first with the reason.
pub fn verify_json(bytes: &[u8], again: &mut impl ReExecute) -> Report {
    match SignedReceipt::from_json(bytes) {
        Ok(receipt) => verify(&receipt, again),
        Err(e) => {
            let mut report = Report { findings: Vec::new() };
            report.add(Field::Format, false, e.to_string());
            for field in &Field::ALL[1..] {
                report.add(*field, false, "not checked: the file is no receipt".into());
            }
            report
        }
    }
}

/// Checks every field of a receipt by running its job again. The job is run even if other fields fail, so that the report says
/// everything there is to say.
///
/// The chain id and the job are what the signature is about; that the job exists is for the ledger to say.
pub fn verify(signed: &SignedReceipt, again: &mut impl ReExecute) -> Report {
    let r = &signed.receipt;
    let mut report = Report { findings: Vec::with_capacity(Field::ALL.len()) };
    report.add(Field::Format, true, format!("{FORMAT}, profile {PROFILE}"));
    let signer = signed.signer().map(|a| a.to_string());
    let malformed = || "the signature is malformed or not in its one form (low s)".to_owned();
    report.compare(Field::Signature, r.node.to_string(), signer.ok_or_else(malformed));

    let text = |h: Hash| format!("0x{h}");
    let model = again.model().map(text).map_err(|e| e.to_string());
    report.compare(Field::Model, text(r.model), model);
    let inputs = again.inputs().map(text).map_err(|e| e.to_string());
    report.compare(Field::Inputs, text(r.inputs), inputs);

    let outcome = |o: Outcome| match o {
        Outcome::Ok { outputs } => text(outputs),
        Outcome::Failed { code } => format!("failure {code}"),
    };
    let run = again.run(r.seed).map_err(|e| e.to_string());
    let found = run.as_ref().map(|e| outcome(e.outcome)).map_err(Clone::clone);
    report.compare(Field::Outcome, outcome(r.outcome), found);
    if let (Ok(e), Some(finding)) = (&run, report.findings.last_mut())
        && !e.why.is_empty()
    {
        finding.detail += &format!(" ({})", e.why);
    }
    report.compare(Field::Cost, r.cost.to_string(), run.map(|e| e.cost.to_string()));
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Receipt};

    #[derive(Clone)]
    struct Found {
        model: Result<Hash, &'static str>,
        inputs: Result<Hash, &'static str>,
        run: Result<Executed, &'static str>,
    }

    impl ReExecute for Found {
        type Error = &'static str;

        fn model(&mut self) -> Result<Hash, &'static str> {
            self.model
        }

        fn inputs(&mut self) -> Result<Hash, &'static str> {
            self.inputs
        }

        fn run(&mut self, seed: u64) -> Result<Executed, &'static str> {
            assert_eq!(seed, 42);
            self.run.clone()
        }
    }

    fn outputs(n: u8) -> Outcome {
        Outcome::Ok { outputs: Hash([n; 32]) }
    }

    fn setup() -> (SignedReceipt, Found) {
        let key = Key::generate();
        let (model, inputs) = (Hash([2; 32]), Hash([3; 32]));
        let receipt = Receipt {
            chain_id: 1729,
            job: Hash([1; 32]),
            model,
            inputs,
            seed: 42,
            outcome: outputs(4),
            cost: 5,
            node: key.address(),
        };
        let run = Executed { outcome: outputs(4), cost: 5, why: String::new() };
        (receipt.sign(&key), Found { model: Ok(model), inputs: Ok(inputs), run: Ok(run) })
    }

    /// Each way to fail, with the fields that do, by name and with what the detail says.
    #[test]
    fn every_field_fails_by_itself() {
        type Change = fn(&mut SignedReceipt, &mut Found);
        let cases: &[(Change, &[(&str, &str)])] = &[
            (|_, _| {}, &[]),
            (|r, _| *r = r.receipt.clone().sign(&Key::generate()), &[("signature", "found 0x")]),
            (|_, f| f.model = Ok(Hash([9; 32])), &[("model", "found 0x0909")]),
            (|_, f| f.model = Err("no such file"), &[("model", "not checked: no such file")]),
            (|_, f| f.inputs = Ok(Hash([9; 32])), &[("inputs", "found 0x0909")]),
            (|_, f| f.inputs = Err("no such file"), &[("inputs", "not checked")]),
            (|_, f| f.run.as_mut().unwrap().outcome = outputs(9), &[("outputs", "found 0x0909")]),
            (|_, f| f.run.as_mut().unwrap().cost = 6, &[("cost", "says 5, found 6")]),
            (
                |_, f| f.run = Err("broken"),
                &[("outputs", "not checked: broken"), ("cost", "not checked: broken")],
            ),
            (
                |_, f| {
                    let outcome = Outcome::Failed { code: 8 };
                    f.run = Ok(Executed { outcome, cost: 0, why: "too dear".into() });
                },
                &[("outputs", "found failure 8 (too dear)"), ("cost", "says 5, found 0")],
            ),
            (|r, _| r.receipt.job = Hash([9; 32]), &[("signature", "found 0x")]),
            (|r, _| r.receipt.chain_id = 1, &[("signature", "found 0x")]),
            (
                |r, _| r.receipt.outcome = Outcome::Failed { code: 3 },
                &[("signature", "found 0x"), ("outputs", "says failure 3, found 0x0404")],
            ),
        ];
        for (at, (change, expected)) in cases.iter().enumerate() {
            let (mut receipt, mut found) = setup();
            change(&mut receipt, &mut found);
            let report = verify(&receipt, &mut found);
            assert_eq!(report, verify_json(receipt.to_json().as_bytes(), &mut found), "case {at}");
            assert_eq!(report.findings.len(), Field::ALL.len(), "case {at}");
            assert_eq!(report.holds(), expected.is_empty(), "case {at}");
            let fails: Vec<_> = report.findings.iter().filter(|f| !f.holds).collect();
            assert_eq!(fails.len(), expected.len(), "case {at}: {fails:?}");
            for (f, (name, says)) in fails.iter().zip(*expected) {
                assert_eq!(f.field.name(), *name, "case {at}");
                assert!(f.detail.contains(says), "case {at}: {}", f.detail);
            }
        }
    }

    #[test]
    fn an_agreed_failure_holds() {
        let (receipt, mut found) = setup();
        let key = Key::generate();
        let outcome = Outcome::Failed { code: 8 };
        let receipt = Receipt { outcome, cost: 0, node: key.address(), ..receipt.receipt }.sign(&key);
        found.run = Ok(Executed { outcome, cost: 0, why: "too dear".into() });
        let report = verify(&receipt, &mut found);
        assert!(report.holds(), "{report:?}");
        assert_eq!(report.findings[4].detail, "failure 8 (too dear)");
    }

    #[test]
    fn what_is_no_receipt_fails_in_every_field() {
        let (_, mut found) = setup();
        let report = verify_json(b"{}", &mut found);
        assert_eq!(report.findings.len(), Field::ALL.len());
        assert!(report.findings.iter().all(|f| !f.holds));
    }
}
