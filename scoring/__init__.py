"""What marks answers: problems, the micro generators, the sandbox, the rules of code and maths. No model is in it."""
