"""`python -m benchmarks.figures cifar10 sensor --seed 1`: a recipe's target with one seed, beside what stands elsewhere.

    __main__    runs the pipeline and its peers, and writes benchmarks/results/figures/RECIPE-TARGET-SEED.json;
                with --control the same target without a teacher, RECIPE-TARGET-SEED-control.json
    rows        those files as a table: seeds together, what distillation gained with its interval
    turns       files of ONNX Runtime and LiteRT in one process, by turns, on the same test samples

Peers: MLPerf Tiny's networks under LiteRT ($LIMBECK_DATA/mlperf-tiny, github.com/mlcommons/tiny), and ONNX Runtime's own
static quantization of the float network that the target quantizes; for keywords its static and dynamic one of the teacher, too.
"""
