"""The studies as graphs of runs: classifiers, then inverters, then what is asked of them, then the report.

    snakemake --cores 2 study_mnist5k    # the small study, on a CPU
    snakemake --cores 2 study_mnist      # the same of all of MNIST
    snakemake --cores 2 study_affnist    # and of what three networks keep of affNIST
    snakemake --cores 2 worlds           # where the information is known exactly
    snakemake --cores 2 profile --config inverter=inverter_mnist5k_fc3 layers=conv1,conv2,fc3,logits
    snakemake --cores 2 compare_mnist5k    # every way to invert one layer, side by side
    snakemake --cores 2 rates_mnist5k      # nats of the picture, and accuracy, against the bits of fc3 that are sent
    snakemake --cores 2 audit_mnist5k    # what can be read of fc3, for someone who must decide
    snakemake --cores 2 budget --config inverter=inverter_mnist5k_fc3    # NCE and p(x) at four budgets of training
    snakemake --cores 8 --resources gpu=8 paper    # on a machine of 8 GPUs: a run on each
    snakemake --executor slurm --jobs 64 paper
    snakemake --cores 2 images --config path=pictures.zip layers=conv1,conv2,fc3    # your own pictures

What is done is not done again; an interrupted training goes on from its last checkpoint.
"""

import hashlib
import itertools
import re
import shlex
import sys
from pathlib import Path

import yaml

CLI = f"{sys.executable} {Path(workflow.basedir) / 'cli.py'}"
RUN = "study"  # the name of every run here, so that its files lie where the rules say
FIT = f"{CLI} fit --name {RUN} --ckpt_path auto"  # an interrupted run goes on
# More arguments for every run: snakemake ... --config 'arguments=--data.data_dir /data'
ARGUMENTS = config.get("arguments", "")
# Of a run without a GPU; more threads than one are slower for each run than as many runs beside each other.
ENVIRONMENT = "export OMP_NUM_THREADS={threads}; "
# And of one with: where there are several, each run has one of them.
ENVIRONMENT += f"{sys.executable} {Path(workflow.basedir) / 'runtime' / 'one_gpu.py'} "

LAYERS = ["conv1", "conv2", "fc3", "logits"]
AFFNIST = ["affnist_conv_fc3", "affnist_pool_fc3", "affnist_fc_fc3"]
PAPER = [f"{data}_{layer}" for data in ("mnist", "svhn", "cifar") for layer in LAYERS] + AFFNIST
SMALL = [f"mnist5k_{layer}" for layer in LAYERS]
WORLDS = sorted(path.stem for path in (Path(workflow.basedir) / "configs").glob("world_*.yaml"))


def updates(data, layers, numbers):
    """The runs of fig 5b: inverters of a classifier after so many updates, regular and overfitted."""
    return [
        f"runs/updates/{kind}_{number:06d}/inverter_{data}_{layer}/{RUN}/results.json"
        for kind in ("updates", "overfitted") for number in numbers for layer in layers
    ]


def results(names):
    return [f"runs/{name}/{RUN}/results.json" for name in names]


def answers(inverters, verbs=("distances", "estimators")):
    """What is asked of every inverter once it is trained."""
    return [f"runs/inverter_{name}/{RUN}/{verb}.json" for name in inverters for verb in verbs]


def classifier_of(wildcards):
    """The result of the classifier that a run inverts; none for an unconditional model."""
    data, *rest = wildcards.data_layer.split("_")
    which = f"{data}_{rest[0]}" if data == "affnist" else data
    which += "_small" if rest[-1:] == ["small"] else ""
    return f"runs/classifier_{which}/{RUN}/results.json"


def best(result):
    """The checkpoint that a result is of, the one in the same run."""
    return str(Path(result).with_name("checkpoints") / "best.ckpt")


def grid(name):
    """The runs of a sweep in sweeps/: every combination is a folder, named by the arguments that it stands for."""
    parameters = yaml.safe_load((Path(workflow.basedir) / "sweeps" / f"{name}.yaml").read_text())["parameters"]
    values = itertools.product(*(values["values"] for values in parameters.values()))
    return [
        f"runs/{name}/{','.join(f'{key}={value}' for key, value in zip(parameters, combination))}"
        f"/inverter_mnist5k_fc3/{RUN}/results.json"
        for combination in values
    ]


def arguments_of(wildcards):
    return " ".join(f"--{argument}" for argument in wildcards.combination.split(","))


STUDIES = {  # of small models: the runs in each one's report, and those of them that more is asked of
    "mnist": (
        ["classifier_mnist_small", "unconditional_mnist_small"]
        + [f"{kind}_mnist_{layer}_small" for kind in ("inverter", "mse") for layer in LAYERS],
        [f"mnist_{layer}_small" for layer in LAYERS],
    ),
    "affnist": ([f"{kind}_small" for net in ("conv", "pool", "fc")
                 for kind in (f"classifier_affnist_{net}", f"inverter_affnist_{net}_fc3")], []),
}
# Ways to invert a layer: the first words of their configs. And one of them at other weights of its entropy loss.
WAYS = ["inverter", "mse", "perceptual", "gan", "pixels", "deconvnet"]


def listed(key, default, example):
    """What a key of --config lists, a default where it is not given."""
    found = config.get(key, default)
    if not isinstance(found, list):
        raise WorkflowError(f"--config {key}={found} is no list; give one, as {key}={example}")
    return found


ENTROPY_WEIGHTS = listed("entropy_weights", [0], "[0,0.3]")
localrules: study_mnist5k, study_mnist, study_affnist, worlds, paper, compare_mnist5k, report_compare, rates_mnist5k
localrules: report_rates
localrules: audit_mnist5k, report_audit
localrules: report_worlds, report_mnist5k, report_study, report_paper, learning_rate_and_dropout, network, optimizer


rule study_mnist5k:
    input: "runs/study_mnist5k.html"


rule study_mnist:
    input: "runs/study_mnist.html"


rule study_affnist:
    input: "runs/study_affnist.html"


rule paper:
    input: "runs/study_paper.html"


rule worlds:
    input: "runs/worlds.html"


rule report_worlds:
    input: results(WORLDS)
    output: "runs/worlds.html"
    params: folders=[f"runs/{name}/{RUN}" for name in WORLDS]
    shell: "{CLI} report {params.folders} --output {output}"


rule report_mnist5k:
    input:
        results(["classifier_mnist5k", "unconditional_mnist5k"]),
        results(f"{kind}_{name}" for kind in ("inverter", "mse") for name in SMALL),
        answers(SMALL),
        updates("mnist5k", ["conv2", "fc3"], [0, 100, 1000]),
    output: "runs/study_mnist5k.html"
    shell: "{CLI} report --output {output}"


rule report_study:
    input:
        lambda wildcards: results(STUDIES[wildcards.data][0]),
        lambda wildcards: answers(STUDIES[wildcards.data][1], ("distances", "estimators", "contrast")),
    output: "runs/study_{data}.html"
    wildcard_constraints: data="|".join(STUDIES)
    params: folders=lambda wildcards: [f"runs/{name}/{RUN}" for name in STUDIES[wildcards.data][0]]
    shell: "{CLI} report {params.folders} --output {output}"


rule report_paper:
    input:
        results(f"unconditional_{data}" for data in ("mnist", "svhn", "cifar", "affnist")),
        results(f"{kind}_{name}" for kind in ("inverter", "mse") for name in PAPER),
        answers(PAPER),
        updates("mnist", LAYERS, [0, 100, 1000, 10000, 100000]),
    output: "runs/study_paper.html"
    shell: "{CLI} report --output {output}"


rule classifier:
    output: f"runs/classifier_{{data}}/{RUN}/results.json"
    wildcard_constraints: data="[a-z0-9_]+"
    resources: gpu=1, runtime="1d"
    shell: ENVIRONMENT + "{FIT} --config classifier_{wildcards.data}.yaml {ARGUMENTS}"


rule conditional:
    input: classifier_of
    output: f"runs/{{kind}}_{{data_layer}}/{RUN}/results.json"
    wildcard_constraints: kind="|".join(WAYS), data_layer="[a-z0-9_]+"
    params: classifier=lambda wildcards, input: best(input[0])
    resources: gpu=1, runtime="5d"
    shell: ENVIRONMENT + "{FIT} --config {wildcards.kind}_{wildcards.data_layer}.yaml --classifier {params.classifier} {ARGUMENTS}"


rule without_classifier:
    output: f"runs/{{name}}/{RUN}/results.json"
    wildcard_constraints: name="(unconditional|world)_[a-z0-9_]+"
    resources: gpu=1, runtime="5d"
    shell: ENVIRONMENT + "{FIT} --config {wildcards.name}.yaml {ARGUMENTS}"


rule of_updates:
    input: lambda wildcards: f"runs/classifier_{wildcards.data}_{wildcards.kind}/{RUN}/results.json"
    output: f"runs/updates/{{kind}}_{{number}}/inverter_{{data}}_{{layer}}/{RUN}/results.json"
    wildcard_constraints: kind="updates|overfitted", data="[a-z0-9]+", layer="[a-z0-9]+"
    params: short=lambda wildcards: "--trainer.max_steps 200" if wildcards.data == "mnist5k" else ""
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + "{FIT} --config inverter_{wildcards.data}_{wildcards.layer}.yaml "
        "--classifier runs/classifier_{wildcards.data}_{wildcards.kind}/{RUN}/checkpoints"
        "/update_{wildcards.number}.ckpt --trainer.default_root_dir runs/updates/{wildcards.kind}_{wildcards.number} "
        "{params.short} {ARGUMENTS}"


rule learning_rate_and_dropout:
    input: grid("learning_rate_and_dropout")


rule network:
    input: grid("network")


rule optimizer:
    input: grid("optimizer")


rule of_classifiers_grid:
    output: f"runs/{{name}}/{{combination}}/classifier_mnist5k/{RUN}/results.json"
    wildcard_constraints: name="network|optimizer"
    params: arguments=arguments_of, root=lambda wildcards: f"runs/{wildcards.name}/{wildcards.combination}"
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{FIT} --config classifier_mnist5k.yaml --trainer.default_root_dir {params.root} "
        "{params.arguments} {ARGUMENTS}"


rule of_grid:
    input:
        lambda wildcards: f"runs/{wildcards.name}/{wildcards.combination}/classifier_mnist5k/{RUN}/results.json"
        if wildcards.name in ("network", "optimizer") else f"runs/classifier_mnist5k/{RUN}/results.json"
    output: f"runs/{{name}}/{{combination}}/inverter_mnist5k_fc3/{RUN}/results.json"
    wildcard_constraints: name="network|optimizer|learning_rate_and_dropout"
    params:
        # The optimiser is the classifier's alone; the classifier of the first grid is the one of the study.
        arguments=lambda wildcards: "" if wildcards.name == "optimizer" else arguments_of(wildcards),
        classifier=lambda wildcards, input: best(input[0]),
        root=lambda wildcards: f"runs/{wildcards.name}/{wildcards.combination}",
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + "{FIT} --config inverter_mnist5k_fc3.yaml --trainer.default_root_dir {params.root} "
        "--classifier {params.classifier} {params.arguments} {ARGUMENTS}"


rule asked:
    input: f"runs/inverter_{{name}}/{RUN}/results.json"
    output: f"runs/inverter_{{name}}/{RUN}/{{verb}}.json"
    wildcard_constraints: verb="distances|estimators|contrast|ledger"
    params: more=lambda wildcards: "--num_images 256" if (wildcards.name, wildcards.verb) == (AUDITED, "contrast") else ""
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} {wildcards.verb} --name {RUN} --config inverter_{wildcards.name}.yaml {params.more} {ARGUMENTS}"


# What can be read of fc3 of the digits, on a page for someone who must decide: the lower bound and re-identification of
# 256 images, of classes too that an inverter never saw, attributes, the rate curve, 500 images as a file, and conv2 of the
# same network beside it.
AUDITED, BESIDE, SENT = "mnist5k_fc3", "mnist5k_conv2", "mnist5k_fc3_rates"
UNSEEN, WITHOUT = f"without_8_9/inverter_{AUDITED}", "--data.left_out_classes '[8, 9]' --trainer.default_root_dir runs/without_8_9"
AUDIT = [
    f"inverter_{AUDITED}", UNSEEN, f"inverter_{BESIDE}", f"inverter_{SENT}", "unconditional_mnist5k",
    "classifier_mnist5k",
]


rule audit_mnist5k:
    input: "runs/audit_mnist5k.html"


rule report_audit:
    input:
        results(AUDIT),
        answers([AUDITED], ("contrast", "ledger", "compression")),
        answers([SENT], ("rates",)),
        f"runs/{UNSEEN}/{RUN}/contrast.json",
        f"runs/inverter_{BESIDE}/{RUN}/diff_{AUDITED}.done",
    output: "runs/audit_mnist5k.html"
    params: folders=[f"runs/{name}/{RUN}" for name in AUDIT]  # the first is audited
    shell: "{CLI} report --for audit {params.folders} --output {output}"


rule of_fewer_classes:
    input: f"runs/classifier_mnist5k/{RUN}/results.json"
    output: f"runs/{UNSEEN}/{RUN}/results.json"
    params: classifier=lambda wildcards, input: best(input[0])
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + f"{{FIT}} --config inverter_{AUDITED}.yaml {WITHOUT} --classifier {{params.classifier}} "
        "{ARGUMENTS}"


rule asked_of_unseen_classes:
    input: f"runs/{UNSEEN}/{RUN}/results.json"
    output: f"runs/{UNSEEN}/{RUN}/contrast.json"
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} contrast --name {RUN} "
        f"--config inverter_{AUDITED}.yaml {WITHOUT} --num_images 256 " "{ARGUMENTS}"


rule compressed:
    input: f"runs/inverter_{{name}}/{RUN}/results.json"
    output: f"runs/inverter_{{name}}/{RUN}/compression.json"
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} compress --name {RUN} --config inverter_{wildcards.name}.yaml --num_images 500 "
        f"--output runs/inverter_{{wildcards.name}}/{RUN}/images.nats " "{ARGUMENTS}"


rule different:
    input: results(["inverter_{a}", "inverter_{b}"])
    output: touch(f"runs/inverter_{{b}}/{RUN}/diff_{{a}}.done")  # its own files have digests in their names
    resources: gpu=1, runtime="1d"
    shell: ENVIRONMENT + f"{{CLI}} diff runs/inverter_{{wildcards.a}}/{RUN} runs/inverter_{{wildcards.b}}/{RUN}"


# What is sent of fc3 of the digits: one inverter of all rates, p(x), and inverters of one rate each to check it by, which
# --config alone_bits=[1,3,8] adds.
ALONE = [f"runs/bits_{bits}/inverter_mnist5k_fc3_rates/{RUN}/results.json" for bits in listed("alone_bits", [], "[1,3,8]")]
RATES = [f"runs/{name}/{RUN}" for name in ("classifier_mnist5k", "unconditional_mnist5k", "inverter_mnist5k_fc3_rates")]


rule rates_mnist5k:
    input: "runs/rates_mnist5k.html"


rule report_rates:
    input: f"runs/inverter_mnist5k_fc3_rates/{RUN}/rates.json"
    output: "runs/rates_mnist5k.html"
    params: folders=RATES
    shell: "{CLI} report {params.folders} --output {output}"


rule rates:
    input:
        f"runs/inverter_mnist5k_fc3_rates/{RUN}/results.json",
        prior=f"runs/unconditional_mnist5k/{RUN}/results.json",
        alone=ALONE,
    output: f"runs/inverter_mnist5k_fc3_rates/{RUN}/rates.json"
    params:
        prior=lambda wildcards, input: best(input.prior),
        alone=lambda wildcards, input: ",".join(map(best, input.alone)),
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} rates --name {RUN} --config inverter_mnist5k_fc3_rates.yaml --prior {params.prior} "
        "--alone '[{params.alone}]' {ARGUMENTS}"


rule of_one_rate:
    input: f"runs/classifier_mnist5k/{RUN}/results.json"
    output: f"runs/bits_{{bits}}/inverter_mnist5k_fc3_rates/{RUN}/results.json"
    wildcard_constraints: bits="[0-9]+"
    params: classifier=lambda wildcards, input: best(input[0])
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + "{FIT} --config inverter_mnist5k_fc3_rates.yaml --model.channel.bits '[{wildcards.bits}]' "
        "--classifier {params.classifier} --trainer.default_root_dir runs/bits_{wildcards.bits} {ARGUMENTS}"


# Every way to invert fc3 of the digits, by measures that all have, and a report of these runs alone. Diversity at other
# weights of the GAN's entropy loss than its config's (the paper's fig 3): --config entropy_weights=[0,0.3]
COMPARED = [f"runs/{way}_mnist5k_fc3/{RUN}" for way in WAYS]
COMPARED += [f"runs/entropy_{weight}/gan_mnist5k_fc3/{RUN}" for weight in ENTROPY_WEIGHTS]
JUDGES = [f"runs/{name}/{RUN}" for name in ("classifier_mnist5k", "judge/classifier_mnist5k", "unconditional_mnist5k")]


rule compare_mnist5k:
    input: "runs/compare_mnist5k.html"


rule report_compare:
    input: [f"{folder}/comparison.json" for folder in COMPARED]
    output: "runs/compare_mnist5k.html"
    params: folders=COMPARED + JUDGES
    shell: "{CLI} report {params.folders} --output {output}"


rule judge:
    output: f"runs/judge/classifier_{{data}}/{RUN}/results.json"
    wildcard_constraints: data="[a-z0-9_]+"
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{FIT} --config classifier_{wildcards.data}.yaml --seed_everything 1 "
        "--trainer.default_root_dir runs/judge {ARGUMENTS}"


rule compared:
    input:
        f"runs/{{way}}_{{data}}_{{layer}}/{RUN}/results.json",
        judge=f"runs/judge/classifier_{{data}}/{RUN}/results.json",
        prior=f"runs/unconditional_{{data}}/{RUN}/results.json",
    output: f"runs/{{way}}_{{data}}_{{layer}}/{RUN}/comparison.json"
    wildcard_constraints: way="|".join(WAYS), data="[a-z0-9]+", layer="[a-z0-9]+"
    params: judge=lambda wildcards, input: best(input.judge), prior=lambda wildcards, input: best(input.prior)
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} compare --name {RUN} --config {wildcards.way}_{wildcards.data}_{wildcards.layer}.yaml "
        "--judge {params.judge} --prior {params.prior} {ARGUMENTS}"


rule of_entropy:
    input: f"runs/classifier_mnist5k/{RUN}/results.json"
    output: f"runs/entropy_{{weight}}/gan_mnist5k_fc3/{RUN}/results.json"
    params: classifier=lambda wildcards, input: best(input[0])
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{FIT} --config gan_mnist5k_fc3.yaml --model.density.entropy_weight {wildcards.weight} "
        "--classifier {params.classifier} --trainer.default_root_dir runs/entropy_{wildcards.weight} {ARGUMENTS}"


rule compared_entropy:
    input:
        f"runs/entropy_{{weight}}/gan_mnist5k_fc3/{RUN}/results.json",
        judge=f"runs/judge/classifier_mnist5k/{RUN}/results.json",
        prior=f"runs/unconditional_mnist5k/{RUN}/results.json",
    output: f"runs/entropy_{{weight}}/gan_mnist5k_fc3/{RUN}/comparison.json"
    params: judge=lambda wildcards, input: best(input.judge), prior=lambda wildcards, input: best(input.prior)
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} compare --name {RUN} --config gan_mnist5k_fc3.yaml --judge {params.judge} --prior {params.prior} "
        "--model.density.entropy_weight {wildcards.weight} --trainer.default_root_dir runs/entropy_{wildcards.weight} {ARGUMENTS}"


# What one network keeps, depth by depth: an inverter of every layer, p(x), and a report of these runs alone.
#
#     snakemake --cores 2 profile --config inverter=inverter_mnist5k_fc3 layers=conv1,layer2.1,'blocks[0]'
#         [unconditional=unconditional_mnist5k] [distances=true] [arguments='--trainer.max_steps 500']
#
# The inverter's config is run with --model.layer LAYER in place of its own layer. p(x) is that of the config
# unconditional_<data> where the inverter is called inverter_<data>_... and there is one; unconditional=none leaves it out.


def layers_of_profile():
    """The layers that are asked for, by the folders of their runs."""
    given = config.get("layers")
    if not config.get("inverter") or given is None:
        return {}
    return {folder_of(layer): layer for layer in layers_given(given)}


def layers_given(given):
    """The names of layers, each once, of a text or a list. Exits with a sentence where there is none."""
    if isinstance(given, float):
        sys.exit(f"error: layers={given} was read as a number; write the name in brackets, as layers=[1.10]")
    # A comma may stand in a key: encoder["a,b"].
    names = given if isinstance(given, list) else re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", str(given))
    layers = list(dict.fromkeys(name for name in map(str.strip, map(str, names)) if name))
    if not layers:
        sys.exit(f"error: layers={given} names no layer; give one or more, as layers=conv1,conv2")
    return layers


def folder_of(layer):
    """The name of the run of a layer, whose own may hold quotes and brackets, or be long."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", layer)[:60]
    return "profile_" + (safe if safe == layer else f"{safe}_{hashlib.sha256(layer.encode()).hexdigest()[:8]}")


def stem(name):
    """What the runs of a config are called by, as cli.py does."""
    return re.sub(r"\.ya?ml$", "", Path(str(name)).name)


def config_of_p_x():
    """Given or found; None where there is none."""
    given = config.get("unconditional", "")
    if given is None or given is False or str(given).lower() in ("none", "null"):
        return None
    if given:
        return str(given)
    # images_small has its own, mnist5k_fc3 that of mnist5k, mnist_fc3_small that of mnist_small.
    words = PROFILED.removeprefix("inverter_").split("_")
    small, words = (["_small"], words[:-1]) if words[-1] == "small" else ([], words)
    names = [f"unconditional_{'_'.join(words[:n])}{size}" for size in (*small, "") for n in range(len(words), 0, -1)]
    folders = (Path(), Path(workflow.basedir) / "configs")
    return next((name for name in names if any((folder / f"{name}.yaml").is_file() for folder in folders)), None)


def without_network(arguments):
    """What p(x), which has no network, is given of the arguments of every run."""
    of_network = r"--(model\.(init_args\.)?(network|weights|preprocessing|tokens|layer)|classifier)\b"
    return " ".join(one for one in re.split(r"\s+(?=--)", arguments.strip()) if not re.match(of_network, one))


def profile_report(wildcards):
    if not LAYER_OF:
        sys.exit(
            "error: profile needs two keys: snakemake --cores 2 profile --config inverter=inverter_mnist5k_fc3 "
            "layers=conv1,conv2,fc3,logits (python cli.py layers --config inverter_mnist5k_fc3 lists the layers)"
        )
    return f"runs/profile_{PROFILED}.html"


LAYER_OF = layers_of_profile()  # by the folder of its run
FIRST_LAYER = next(iter(LAYER_OF.values()), "")
INVERTER = config.get("inverter") or "inverter"
PROFILED = stem(INVERTER)
P_X = config_of_p_x()
P_X_ARGUMENTS = without_network(ARGUMENTS)
PROFILES = [f"runs/{PROFILED}/{folder}" for folder in LAYER_OF]
# A step: the classifier on the way is trained once before all runs, and a mistake is seen here.
BEGIN = ENVIRONMENT + "{CLI} fit --config {INVERTER:q} --trainer.fast_dev_run true"
P_X_PROFILE = [f"runs/{stem(P_X)}/profile"] if P_X else []
localrules: profile, report_profile


rule profile:
    input: profile_report


rule report_profile:
    input:
        [f"{folder}/results.json" for folder in PROFILES + P_X_PROFILE],
        [f"{folder}/distances.json" for folder in PROFILES if config.get("distances")],
    output: f"runs/profile_{PROFILED}.html"
    params: folders=PROFILES + P_X_PROFILE
    shell: "{CLI} report {params.folders:q} --output {output:q}"


rule profile_begins:
    output: touch(f"runs/{PROFILED}/profile_begins")
    resources: gpu=1, runtime="1d"
    shell: BEGIN + " --model.layer {FIRST_LAYER:q} {ARGUMENTS}"


rule profile_layer:
    input: ancient(rules.profile_begins.output)
    output: f"runs/{PROFILED}/{{folder}}/results.json"
    wildcard_constraints: folder=r"profile_[A-Za-z0-9_.-]+"
    params: layer=lambda wildcards: LAYER_OF[wildcards.folder]
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + "{CLI} fit --name {wildcards.folder} --ckpt_path auto --config {INVERTER:q} "
        "--model.layer {params.layer:q} {ARGUMENTS}"


rule profile_distances:
    input: rules.profile_layer.output
    output: f"runs/{PROFILED}/{{folder}}/distances.json"
    wildcard_constraints: folder=r"profile_[A-Za-z0-9_.-]+"
    params: layer=lambda wildcards: LAYER_OF[wildcards.folder]
    resources: gpu=1, runtime="1d"
    shell:
        ENVIRONMENT + "{CLI} distances --name {wildcards.folder} --config {INVERTER:q} "
        "--model.layer {params.layer:q} {ARGUMENTS}"


rule profile_unconditional:
    output: "runs/{name}/profile/results.json"
    wildcard_constraints: name="[^/]+"
    resources: gpu=1, runtime="5d"
    shell: ENVIRONMENT + "{CLI} fit --name profile --ckpt_path auto --config {P_X:q} {P_X_ARGUMENTS}"


# Where NCE goes with the budget: the same experiment at several, each four times the one before, p(x) at the same, and a
# report of these runs alone.
#
#     snakemake --cores 2 budget --config inverter=inverter_mnist5k_fc3
#         [budgets=4] [steps=6000] [unconditional=unconditional_mnist5k] ['arguments=--data.num_train 1000']
#
# The largest is the config's own max_steps, unless steps gives another. Each budget is a config in runs/budgets, with
# runs in a folder of its own name. p(x) is as for profile.
sys.path.insert(0, str(workflow.basedir))
from commands.config_files import find_config, read_config  # the one reader of configs, which imports nothing heavy

BUDGETS = f"runs/budget_{PROFILED}.html"
BUDGET_BEGINS = f"runs/budgets/{PROFILED}_begins"
OF_BUDGETS = {stem(P_X): (P_X, P_X_ARGUMENTS)} if P_X else {}
OF_BUDGETS |= {PROFILED: (INVERTER, ARGUMENTS)}
localrules: budget, report_budget, budget_config


def budget_report(wildcards):
    """Exits with a sentence where the keys give no budgets."""
    if not config.get("inverter"):
        sys.exit("error: budget needs a key: snakemake --cores 2 budget --config inverter=inverter_mnist5k_fc3")
    if "--trainer.max_steps" in ARGUMENTS:
        sys.exit("error: arguments give --trainer.max_steps, which every budget has its own of; give steps=N, the largest")
    steps_of_budgets()
    return BUDGETS


def keys_of(name):
    """Of a config."""
    try:
        return read_config(find_config(name))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def trainer_of(name):
    """What a config says of its trainer, and what holds where it says nothing."""
    from_config = keys_of(name).get("trainer") or {}
    if {"max_steps", "val_check_interval"} <= from_config.keys():
        return from_config
    from commands.parser import TRAINER_DEFAULTS  # which imports torch

    return TRAINER_DEFAULTS | from_config


def steps_of_budgets():
    """Of training, from the most on."""
    number, largest = config.get("budgets", 4), config.get("steps", trainer_of(INVERTER)["max_steps"])
    if not isinstance(number, int) or number < 2:
        sys.exit(f"error: budgets is {number}; give 2 or more, each of which is four times the one before")
    if not isinstance(largest, int) or largest < 4 ** (number - 1):
        sys.exit(
            f"error: {largest} steps are too few for {number} budgets, each four times the one before; "
            f"give steps={4 ** (number - 1)} or more"
        )
    return [round(largest / 4**k) for k in range(number)]


def budget_folders(wildcards):
    return [f"runs/budget_{name}_{steps:06d}/{RUN}" for name in OF_BUDGETS for steps in reversed(steps_of_budgets())]


def with_steps(name, steps):
    """The keys of a config that trains for so long: validated at its end, and in all as often as the config is, or less."""
    keys, trainer = keys_of(name), trainer_of(name)
    every = trainer["val_check_interval"]
    every = every * steps / trainer["max_steps"] if isinstance(every, int) else steps  # else a share of an epoch
    every = next((n for n in range(1, steps) if n >= every and steps % n == 0), steps)
    # Where validations are said, patience is too: that of a preset is of its own.
    keys = {"patience": 20, **keys, "sample_grid": {**(keys.get("sample_grid") or {}), "every_n_steps": steps}}
    keys["trainer"] = {**(keys.get("trainer") or {}), "max_steps": steps, "val_check_interval": every}
    return yaml.safe_dump(keys, sort_keys=False)


def budget_begun(wildcards):
    """What comes before the runs of an experiment with a classifier."""
    return ancient(BUDGET_BEGINS) if wildcards.name == PROFILED and keys_of(INVERTER).get("classifier") else []


rule budget:
    input: budget_report


rule report_budget:
    input: lambda wildcards: [f"{folder}/results.json" for folder in budget_folders(wildcards)]
    output: BUDGETS
    params: folders=budget_folders
    shell: "{CLI} report {params.folders:q} --output {output:q}"


rule budget_config:
    output: "runs/budgets/budget_{name}_{steps}.yaml"
    wildcard_constraints: name="[^/]+", steps=r"\d+"
    params: text=lambda wildcards: with_steps(OF_BUDGETS[wildcards.name][0], int(wildcards.steps))
    shell: "printf %s {params.text:q} > {output:q}"


rule budget_begins:
    output: touch(BUDGET_BEGINS)
    resources: gpu=1, runtime="1d"
    shell: BEGIN + " {ARGUMENTS}"


rule budget_run:
    input:
        budget_begun,
        of_budget=ancient(rules.budget_config.output),
    output: f"runs/budget_{{name}}_{{steps}}/{RUN}/results.json"
    wildcard_constraints: name="[^/]+", steps=r"\d+"
    params: arguments=lambda wildcards: OF_BUDGETS[wildcards.name][1]
    resources: gpu=1, runtime="5d"
    shell: ENVIRONMENT + "{FIT} --config {input.of_budget:q} {params.arguments}"


# Your own pictures: classifier, p(x), and of every chosen layer an inverter and a decoder, with a report of these alone.
#
#     snakemake --cores 2 images --config path=pictures.zip layers=conv1,conv2,fc3
#         [size=large] [mse=false] ['arguments=--data.side 64 --data.skip_bad true']
#
# Small models for a CPU, unless size=large; mse=false leaves out the decoders, which know only ConvNet's maps.
IMAGES = {"small": "images_small", "large": "images"}.get(str(config.get("size", "small")))
IMAGES_LAYERS = layers_given(config.get("layers", "conv2"))
IMAGES_FIT = f"--data.path {shlex.quote(str(config.get('path')))} --trainer.default_root_dir runs/images/{{wildcards.pictures}}"
localrules: images, report_images


def images_report(wildcards):
    """Of the pictures that are asked for, whose runs have a folder of their own. Exits with a sentence without them."""
    path = Path(str(config.get("path", "")))
    if not config.get("path") or not path.exists():
        sys.exit(f"error: no pictures at {config.get('path')}; give --config path=FOLDER, or a .zip")
    if IMAGES is None:
        sys.exit(f"error: size is {config['size']}; give small or large")
    # Others may have the same name, whose runs these must not replace.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = re.sub("[^A-Za-z0-9_.-]", "_", path.resolve().name.removesuffix(".zip"))
    return f"runs/images/{name}_{digest}/report.html"


def images_results(wildcards):
    """What it is of."""
    kinds = ["inverter"] if str(config.get("mse")).lower() == "false" else ["inverter", "mse"]
    runs = [f"classifier_{IMAGES}/{RUN}", f"unconditional_{IMAGES}/{RUN}"]
    runs += [f"{kind}_{IMAGES}/{layer}" for kind in kinds for layer in IMAGES_LAYERS]
    return [f"runs/images/{wildcards.pictures}/{run}/results.json" for run in runs]


rule images:
    input: images_report


rule report_images:
    input: images_results
    output: "runs/images/{pictures}/report.html"
    shell: "{CLI} report runs/images/{wildcards.pictures} --output {output}"


rule images_alone:
    output: f"runs/images/{{pictures}}/{{kind}}_{IMAGES}/{RUN}/results.json"
    wildcard_constraints: kind="classifier|unconditional", pictures="[^/]+"
    resources: gpu=1, runtime="5d"
    shell: ENVIRONMENT + "{FIT} --config {wildcards.kind}_{IMAGES}.yaml " + IMAGES_FIT + " {ARGUMENTS}"


rule images_of_layer:
    input: f"runs/images/{{pictures}}/classifier_{IMAGES}/{RUN}/results.json"
    output: f"runs/images/{{pictures}}/{{kind}}_{IMAGES}/{{layer}}/results.json"
    wildcard_constraints: kind="inverter|mse", pictures="[^/]+", layer="[^/]+"
    params: classifier=lambda wildcards, input: best(input[0])
    resources: gpu=1, runtime="5d"
    shell:
        ENVIRONMENT + "{CLI} fit --name {wildcards.layer:q} --ckpt_path auto --config {wildcards.kind}_{IMAGES}.yaml "
        "--model.layer {wildcards.layer:q} --classifier {params.classifier:q} " + IMAGES_FIT + " {ARGUMENTS}"
