//! Networks of a known shape and cost, with random weights.

use wick_package::Datatype;

use super::builder::{Builder, attribute_ints};

/// Side and channels of the pictures that the convolution networks take.
const PICTURE: [i64; 4] = [1, 3, 224, 224];

/// Blocks of each stage of ResNet-50, and the channels inside them.
const RESNET_STAGES: [(usize, i64); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];

/// A bottleneck block's output has four times its inner channels.
const EXPANSION: i64 = 4;

/// Classes at the end of the convolution networks.
const CLASSES: i64 = 1000;

/// A convolution as the builder needs to know it.
struct Conv {
    from: i64,
    to: i64,
    kernel: i64,
    stride: i64,
}

/// `layers` dense layers of `width` x `width` FP32 weights, each followed by ReLU:
/// `x` and `y` are `[-1, width]`. Bound by reading the weights, so batches pay.
pub fn dense(width: u64, layers: usize) -> Vec<u8> {
    let width = i64::try_from(width).expect("a layer's width fits 63 bits");
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &[-1, width]);
    let mut from = "x".to_owned();
    for layer in 0..layers {
        let (weights, product) = (format!("w{layer}"), format!("m{layer}"));
        let to = if layer + 1 == layers { "y".to_owned() } else { format!("r{layer}") };
        model.weights(&weights, &[width, width], width);
        model.node("MatMul", &[&from, &weights], &product, vec![]);
        model.node("Relu", &[&product], &to, vec![]);
        from = to;
    }
    model.output("y", Datatype::Fp32, &[-1, width]);
    model.build()
}

/// A small convolution network, about 0.36 G multiply-adds, and `more` layers of 0.12 G each:
/// `x` is `[1, 3, 224, 224]`, `y` is `[1, 1000]`. Without more 3 to 10 ms on one core.
pub fn conv_net(more: usize) -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &PICTURE);
    let last = (128, 128, 1);
    let layers = [(3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), last];
    let layers = layers.into_iter().chain(std::iter::repeat_n(last, more));
    let mut from = "x".to_owned();
    for (index, (channels, to, stride)) in layers.enumerate() {
        let conv = Conv { from: channels, to, kernel: 3, stride };
        let name = format!("c{index}");
        convolution(&mut model, &from, &name, &conv);
        from = format!("{name}_relu");
        model.node("Relu", &[&name], &from, vec![]);
    }
    classify(&mut model, &from, 128);
    model.build()
}

/// `layers` quantised convolutions of `channels` by `channels`, 3 by 3, in QDQ form: FP32 of
/// `[1, channels, side, side]` in and out, UINT8 between. What it answers means nothing; compilers of NPUs have
/// seconds of work with it.
pub fn quantised_net(layers: usize, channels: i64, side: i64) -> Vec<u8> {
    let mut model = Builder::new();
    let shape = [1, channels, side, side];
    model.input("x", Datatype::Fp32, &shape);
    model.floats("scale", &[], &[0.02]);
    model.tensor("zero", Datatype::Uint8, &[], vec![128]);
    model.floats("weight_scale", &[], &[0.01]);
    model.tensor("weight_zero", Datatype::Int8, &[], vec![0]);
    let quantised = |model: &mut Builder, from: &str, to: &str| {
        let between = format!("{to}_q");
        model.node("QuantizeLinear", &[from, "scale", "zero"], &between, vec![]);
        model.node("DequantizeLinear", &[&between, "scale", "zero"], to, vec![]);
    };
    quantised(&mut model, "x", "in");
    let mut from = "in".to_owned();
    for layer in 0..layers {
        let (stored, weights) = (format!("w{layer}"), format!("w{layer}_d"));
        let count = channels * channels * 9;
        // Any numbers will do, but each layer has others.
        let data = (0..count).map(|at| ((at * 37 + layer as i64 * 11) % 251) as u8).collect();
        model.tensor(&stored, Datatype::Int8, &[channels, channels, 3, 3], data);
        let scaled = [stored.as_str(), "weight_scale", "weight_zero"];
        model.node("DequantizeLinear", &scaled, &weights, vec![]);
        let attributes =
            vec![attribute_ints("kernel_shape", &[3, 3]), attribute_ints("pads", &[1; 4])];
        let (sum, relu) = (format!("c{layer}"), format!("r{layer}"));
        model.node("Conv", &[&from, &weights], &sum, attributes);
        model.node("Relu", &[&sum], &relu, vec![]);
        from = if layer + 1 == layers { "y".to_owned() } else { format!("d{layer}") };
        quantised(&mut model, &relu, &from);
    }
    model.output("y", Datatype::Fp32, &shape);
    model.build()
}

/// A network of ResNet-50's shape and size, 102 MB: convolution, batch
/// normalisation, ReLU and residual additions. `x` is `[1, 3, 224, 224]`, `y` is
/// `[1, 1000]`.
pub fn resnet50_shaped() -> Vec<u8> {
    let mut model = Builder::new();
    model.input("x", Datatype::Fp32, &PICTURE);
    normalised(&mut model, "x", "stem", &Conv { from: 3, to: 64, kernel: 7, stride: 2 });
    model.node("Relu", &["stem_bn"], "stem_relu", vec![]);
    let pool = vec![
        attribute_ints("kernel_shape", &[3, 3]),
        attribute_ints("strides", &[2, 2]),
        attribute_ints("pads", &[1; 4]),
    ];
    model.node("MaxPool", &["stem_relu"], "stem_pool", pool);
    let mut from = ("stem_pool".to_owned(), 64);
    for (stage, (blocks, inner)) in RESNET_STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("s{stage}b{block}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            from = bottleneck(&mut model, &from, &name, inner, stride);
        }
    }
    classify(&mut model, &from.0, from.1);
    model.build()
}

fn bottleneck(
    model: &mut Builder,
    (input, channels): &(String, i64),
    name: &str,
    inner: i64,
    stride: i64,
) -> (String, i64) {
    let outer = inner * EXPANSION;
    let convs = [
        Conv { from: *channels, to: inner, kernel: 1, stride: 1 },
        Conv { from: inner, to: inner, kernel: 3, stride },
        Conv { from: inner, to: outer, kernel: 1, stride: 1 },
    ];
    let mut from = input.clone();
    for (index, conv) in convs.iter().enumerate() {
        let step = format!("{name}c{index}");
        normalised(model, &from, &step, conv);
        from = format!("{step}_bn");
        if index < 2 {
            let relu = format!("{step}_relu");
            model.node("Relu", &[&from], &relu, vec![]);
            from = relu;
        }
    }
    let mut shortcut = input.clone();
    if *channels != outer {
        let step = format!("{name}down");
        let conv = Conv { from: *channels, to: outer, kernel: 1, stride };
        normalised(model, input, &step, &conv);
        shortcut = format!("{step}_bn");
    }
    let (sum, output) = (format!("{name}_sum"), format!("{name}_out"));
    model.node("Add", &[&from, &shortcut], &sum, vec![]);
    model.node("Relu", &[&sum], &output, vec![]);
    (output, outer)
}

/// A convolution and a batch normalisation; the output is `{name}_bn`.
fn normalised(model: &mut Builder, input: &str, name: &str, conv: &Conv) {
    convolution(model, input, name, conv);
    let channels = conv.to as usize;
    // Halving keeps the sum of a block and its shortcut from growing with depth.
    let parameters = [("scale", 0.5), ("bias", 0.01), ("mean", 0.0), ("var", 1.0)];
    let names: Vec<_> = parameters
        .iter()
        .map(|(kind, value)| {
            let parameter = format!("{name}_{kind}");
            model.floats(&parameter, &[conv.to], &vec![*value; channels]);
            parameter
        })
        .collect();
    let inputs = [name, &names[0], &names[1], &names[2], &names[3]];
    model.node("BatchNormalization", &inputs, &format!("{name}_bn"), vec![]);
}

/// A convolution that keeps the size, or halves it with stride 2.
fn convolution(model: &mut Builder, input: &str, name: &str, conv: &Conv) {
    let weights = format!("{name}_w");
    let Conv { from, to, kernel, stride } = *conv;
    model.weights(&weights, &[to, from, kernel, kernel], from * kernel * kernel);
    let attributes = vec![
        attribute_ints("kernel_shape", &[kernel; 2]),
        attribute_ints("strides", &[stride; 2]),
        attribute_ints("pads", &[kernel / 2; 4]),
    ];
    model.node("Conv", &[input, &weights], name, attributes);
}

/// The mean of each channel and a dense layer; the output is `y`.
fn classify(model: &mut Builder, input: &str, channels: i64) {
    model.node("GlobalAveragePool", &[input], "pooled", vec![]);
    model.node("Flatten", &["pooled"], "flat", vec![]);
    model.weights("classes_w", &[channels, CLASSES], channels);
    model.node("MatMul", &["flat", "classes_w"], "y", vec![]);
    model.output("y", Datatype::Fp32, &[1, CLASSES]);
}
