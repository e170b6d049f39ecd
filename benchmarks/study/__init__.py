"""What a study is: arms, metrics, hypotheses; checked where it is read."""
