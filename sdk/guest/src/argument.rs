//! Arguments of a handler that takes its inputs one by one.

use crate::{Element, Error, ErrorKind, Request, Result, ResultExt as _, Tensor};

/// What a function with `#[handler]` may take: the whole [`Request`], or inputs by the
/// names of its arguments.
///
/// A [`Tensor`] is passed as it is; a `Vec` of numbers, `Vec<String>` or `String` (the
/// only element) is read; an `Option` is none if the caller left the input out.
///
/// ```
/// use wick_guest::{Response, Result, Tensor, handler};
///
/// #[handler]
/// fn infer(image: Tensor, weights: Vec<f32>, note: Option<String>) -> Result<Response> {
///     let total: f32 = weights.iter().sum();
///     let note = note.unwrap_or_default();
///     Ok(Response::new()
///         .output("image", image)
///         .output("total", Tensor::new(&[1], [total])?)
///         .output("note", Tensor::from_strings(&[1], &[note])?))
/// }
///
/// let answer = infer(Tensor::new(&[1], [0_u8])?, vec![0.5, 0.25], None)?;
/// assert_eq!(answer.get("total")?.to_vec::<f32>()?, [0.75]);
/// # Ok::<(), wick_guest::Error>(())
/// ```
pub trait Argument: Sized {
    /// Take this argument out of the request.
    ///
    /// # Errors
    /// The input is missing or can't be read as this type: the caller's mistake.
    fn from_request(request: &mut Request, name: &str) -> Result<Self>;
}

// === impl Argument ===

impl Argument for Request {
    fn from_request(request: &mut Request, _name: &str) -> Result<Self> {
        Ok(std::mem::take(request))
    }
}

impl Argument for Tensor {
    fn from_request(request: &mut Request, name: &str) -> Result<Self> {
        request.inputs.remove(name).or_bad_input(format_args!("input `{name}` is missing"))
    }
}

impl<T: Element> Argument for Vec<T> {
    fn from_request(request: &mut Request, name: &str) -> Result<Self> {
        read(request, name, Tensor::to_vec)
    }
}

impl Argument for Vec<String> {
    fn from_request(request: &mut Request, name: &str) -> Result<Self> {
        read(request, name, Tensor::to_strings)
    }
}

impl Argument for String {
    fn from_request(request: &mut Request, name: &str) -> Result<Self> {
        let mut values: Vec<String> = Argument::from_request(request, name)?;
        match values.len() {
            1 => Ok(values.remove(0)),
            count => Err(Error::bad_input(format_args!(
                "input `{name}` has {count} elements, and the handler takes one"
            ))),
        }
    }
}

impl<A: Argument> Argument for Option<A> {
    fn from_request(request: &mut Request, name: &str) -> Result<Self> {
        request.inputs.find(name).is_some().then(|| A::from_request(request, name)).transpose()
    }
}

fn read<T>(
    request: &mut Request,
    name: &str,
    read: impl FnOnce(&Tensor) -> Result<T>,
) -> Result<T> {
    let tensor = Tensor::from_request(request, name)?;
    read(&tensor)
        .map_err(|error| Error::new(ErrorKind::BadInput, format_args!("input `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Result<Request> {
        Ok(Request::new()
            .with_input("x", Tensor::new(&[2], [1_i32, 2])?)
            .with_input("word", Tensor::from_strings(&[1], &["hi"])?)
            .with_input("words", Tensor::from_strings(&[2], &["a", "b"])?))
    }

    #[test]
    fn inputs_are_read_as_the_type_of_the_argument() -> Result<()> {
        let mut request = request()?;
        assert_eq!(Vec::<i32>::from_request(&mut request, "x")?, [1, 2]);
        assert_eq!(String::from_request(&mut request, "word")?, "hi");
        assert_eq!(
            Option::<Vec<String>>::from_request(&mut request, "words")?.unwrap(),
            ["a", "b"]
        );
        assert_eq!(Option::<Vec<String>>::from_request(&mut request, "words")?, None);
        Ok(())
    }

    #[test]
    fn a_missing_or_unreadable_input_is_the_callers_mistake() -> Result<()> {
        let errors = [
            Vec::<f32>::from_request(&mut request()?, "x").unwrap_err(),
            Tensor::from_request(&mut request()?, "y").unwrap_err(),
            String::from_request(&mut request()?, "words").unwrap_err(),
            Option::<String>::from_request(&mut request()?, "x").unwrap_err(),
        ];
        let messages = [
            "input `x`: a tensor of INT32 can't be read as FP32",
            "input `y` is missing",
            "input `words` has 2 elements, and the handler takes one",
            "input `x`: a tensor of INT32 can't be read as BYTES",
        ];
        for (error, message) in errors.iter().zip(messages) {
            assert_eq!((error.kind(), error.message()), (ErrorKind::BadInput, message));
        }
        Ok(())
    }
}
