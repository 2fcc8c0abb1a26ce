"""Job descriptions: what is read from good ones, and the one line for each bad one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.errors import JobDescriptionError
from gridtide.model.resources import Resources
from gridtide.pilot.jdl import ATTRIBUTES, DEFAULT_MEMORY, DEFAULT_TTL, parse
from gridtide.pilot.jdl_syntax import MAXIMUM_EXPRESSION, MAXIMUM_TEXT
from gridtide.pilot.protocol import JobId
from tests.unit.pilot.support import Site

RUN = 'Executable = "/bin/true"; '


def test_defaults() -> None:
    job = parse('Executable = "/opt/bin/run";')
    assert job.executable == "/opt/bin/run"
    assert job.name == "run"
    assert job.need == Resources(cores=1, memory=DEFAULT_MEMORY)
    assert job.walltime == DEFAULT_TTL == 86400
    assert (job.inputs, job.outputs, job.arguments, job.axes) == ((), (), (), ())
    assert job.requirements == "true"
    assert job.size == 1


def test_plain_and_bracketed_forms_with_comments_mean_the_same() -> None:
    plain = parse('# a comment; with = signs "\nExecutable = "run.sh"; // more\nTTL = 60 /* and\nmore */;\nCores = 2')
    assert plain == parse('[\n  EXECUTABLE = "run.sh"; ttl = 60; cores = 2;\n]\n// end\n')
    assert plain.inputs == ("run.sh",)


def test_a_description_as_alien_writes_it() -> None:
    job = parse(
        """
        Executable = "/alice/bin/aliroot";
        Arguments = "--run 5 'two words' #alien_counter#";
        InputFile = {"LF:/alice/sim/Config.C", "LF:grid.xml"};
        OutputFile = {"galice.root", "*.log"};
        Requirements = other.Arch == "X86_64" && ( other.Memory > 1000 );
        Split = "production:1-1000";
        Jobname = "sim; with # signs";
        """
    )
    assert job.size == 1000
    assert job.inputs == ("Config.C", "grid.xml")
    last = job.assignment(JobId("1.999"), 999, 1, ())
    assert last.arguments == ("--run", "5", "two words", "1000")
    assert job.name == "sim; with # signs"
    assert job.requirements == 'other.Arch == "X86_64" && (other.Memory > 1000)'


def test_amounts_with_units() -> None:
    job = parse(RUN + 'TTL = "1.5 h"; Memory = "2 GiB"; Disk = "1500 MB"; Gpus = 1; Cores = 4; Priority = -5;')
    assert job.walltime == 5400
    assert job.need == Resources(4, 2048, 1431, 1)
    assert job.priority == -5


def test_words_are_cut_as_by_a_shell_but_none_runs() -> None:
    job = parse(RUN + r'Arguments = "a \"b c\" $HOME `x` *.txt d\\ e";')
    assert job.arguments == ("a", "b c", "$HOME", "`x`", "*.txt", "d e")
    assert parse(RUN + 'Arguments = {"a b", "", "c"};').arguments == ("a b", "", "c")


@pytest.mark.parametrize(
    "text", ['[ B = "x"; A = 3; C = true; D = 1.5 ]', '{"B=x", "A=3", "C=true", "D=1.5"}'], ids=["ad", "list"]
)
def test_environment_keeps_its_order(text: str) -> None:
    environment = parse(RUN + f"Environment = {text};").environment
    assert environment == (("B", "x"), ("A", "3"), ("C", "true"), ("D", "1.5"))


def test_sweep_is_a_product_whose_last_name_runs_fastest() -> None:
    job = parse(
        RUN
        + 'Sweep = [ seed = {1, 2, 3}; energy = {"low", "high"} ]; Arguments = "$(seed) $(energy) $(index)"; '
        + 'OutputFile = "out-$(seed)-$(energy).root"; Environment = [ SEED = "$(seed)" ];'
    )
    words = [job.assignment(JobId(f"1.{index}"), index, 1, ()) for index in range(job.size)]
    assert [" ".join(each.arguments) for each in words] == [
        "1 low 0",
        "1 high 1",
        "2 low 2",
        "2 high 3",
        "3 low 4",
        "3 high 5",
    ]
    assert words[3].outputs == ("out-2-high.root",)
    assert words[3].environment == {"SEED": "2"}


def test_array_with_a_range_and_a_sweep() -> None:
    job = parse(RUN + 'Array = "5-6"; Sweep = [ x = {"a", "b"} ]; Arguments = "$(x)$(index) $$(index)";')
    found = [job.assignment(JobId("1.0"), index, 1, ()).arguments for index in range(job.size)]
    assert found == [(f"{x}{index}", "$(index)") for x in "ab" for index in (5, 6)]


def test_requirements_that_always_hold_become_none() -> None:
    assert parse(RUN + "Requirements = 1 < 2 && MY.RequestCpus == 1;").requirements == "true"


def test_custom_attributes_are_ignored_when_sound() -> None:
    assert parse(RUN + 'X_Campaign = "2026"; x_n = 3;') == parse(RUN)


def test_output_files_may_lie_in_directories() -> None:
    assert parse(RUN + 'OutputFile = {"a/b/*.root", "c[0-9].txt"};').outputs == ("a/b/*.root", "c[0-9].txt")


# description, attribute that the error names, words of the line
BROKEN: list[tuple[str, str, str]] = [
    ("", "Executable", "no Executable"),
    ("   # nothing\n", "Executable", "no Executable"),
    ("[]", "Executable", "no Executable"),
    ('Arguments = "x";', "Executable", "no Executable"),
    ("hello", "line 1", "not of the form"),
    ("= 3;", "line 1", "not of the form"),
    ("Executable;", "line 1", "not of the form"),
    ('Executable == "a";', "line 1", "not of the form"),
    ('{"a"}', "line 1", "not of the form"),
    ("Executable = ;", "Executable", "has no value"),
    ('Executable = "a', "line 1", "string that is not closed"),
    ('Executable = "a\nb";', "line 1", "string that is not closed"),
    ("Executable = 'a';", "line 1", "single quote"),
    ('[ Executable = "a"; ', "line 1", "'[' that is not closed"),
    ('Executable = "a"; ]', "line 1", "']' that closes nothing"),
    (RUN + 'Arguments = {"a", ("b"}; ', "line 1", "'}' that closes nothing"),
    ('[ Executable = "a"; ] [ Executable = "b"; ]', "line 1", "text after the closing bracket"),
    ('Executable = "a"; /* begun', "line 1", "comment that is not closed"),
    ('Executable = "a"\nArguments = "b";', "Executable", "semicolon is missing before 'Arguments'"),
    ('Executable = "a" b;', "Executable", "not a ClassAd expression"),
    ('Executable = "a\0b";', "line 1", "NUL"),
    ('Executable = "a"; Executable = "b";', "Executable", "given twice"),
    ('Executable = "a"; EXECUTABLE = "b";', "EXECUTABLE", "given twice"),
    ('Exectuable = "a";', "Exectuable", "did you mean Executable?"),
    (RUN + "Walltime = 5;", "Walltime", "did you mean TTL?"),
    (RUN + 'OutputFiles = "x";', "OutputFiles", "did you mean OutputFile?"),
    (RUN + "Zebra = 5;", "Zebra", "not an attribute"),
    ("Executable = 5;", "Executable", "text in double quotes"),
    ("Executable = run.sh;", "Executable", "must be a plain value"),
    ('Executable = "";', "Executable", "text in double quotes"),
    ('Executable = "../run.sh";', "Executable", "not the plain name"),
    ('Executable = "a/../../b";', "Executable", "not the plain name"),
    ('Executable = "/bin/../etc/x";', "Executable", "not the path of a program"),
    ('Executable = "a\\nb";', "Executable", "control character"),
    ('Executable = strcat("a", "b");', "Executable", "calls the function"),
    (RUN + 'InputFile = {"a", "a"};', "InputFile", "twice"),
    (RUN + 'InputFile = {"a", "a/b"};', "InputFile", "where its directory would be"),
    (RUN + 'InputFile = {"/etc/passwd"};', "InputFile", "absolute"),
    (RUN + 'InputFile = {"LF:/a/.."};', "InputFile", "not the plain name"),
    (RUN + 'InputFile = {"a//b"};', "InputFile", "not the plain name"),
    (RUN + 'InputFile = {"a\\\\b"};', "InputFile", "backslash"),
    (RUN + 'InputFile = {".gridtide-upload-1"};', "InputFile", "reserved"),
    (RUN + "InputFile = {1, 2};", "InputFile", "not a text"),
    (RUN + "InputFile = 7;", "InputFile", "list of texts"),
    (RUN + f'InputFile = {{"{"x" * 300}"}};', "InputFile", "too long"),
    (RUN + 'OutputFile = {"../x"};', "OutputFile", "not the plain name"),
    (RUN + 'OutputFile = {"x", "x"};', "OutputFile", "twice"),
    (RUN + 'OutputFile = "$(nothing).txt";', "OutputFile", "nothing gives $(nothing) a value"),
    (RUN + 'OutputFile = "$(d)/x"; Sweep = [ d = {".."} ];', "OutputFile", "cannot be part of a file name"),
    (RUN + 'Arguments = "it\'s";', "Arguments", "quotation mark"),
    (RUN + 'Arguments = "$(seeed)"; Sweep = [ seed = {1} ];', "Arguments", "known: $(index), $(seed)"),
    (RUN + f'Arguments = "{"x" * 100_000}";', "Arguments", "longer than"),
    (RUN + 'Environment = {"A"};', "Environment", "NAME=value"),
    (RUN + 'Environment = {"A=1", "A=2"};', "Environment", "twice"),
    (RUN + "Environment = [ A = 1; a = 2 ];", "Environment", "twice"),
    (RUN + 'Environment = {"1A=2"};', "Environment", "not the name of a variable"),
    (RUN + 'Environment = {"LD PRELOAD=2"};', "Environment", "not the name of a variable"),
    (RUN + "Environment = [ A = {1} ];", "Environment", "not a text, number or truth value"),
    (RUN + 'TTL = "2 fortnights";', "TTL", "number of seconds"),
    (RUN + "TTL = 2 h;", "TTL", "not a ClassAd expression"),
    (RUN + "TTL = 0;", "TTL", "between"),
    (RUN + "TTL = -5;", "TTL", "between"),
    (RUN + "TTL = 1e300;", "TTL", "between"),
    (RUN + "TTL = 1e400;", "TTL", "finite"),
    (RUN + "TTL = true;", "TTL", "number of seconds"),
    (RUN + 'Memory = "lots";', "Memory", "number of MiB"),
    (RUN + "Memory = 0;", "Memory", "between"),
    (RUN + "Memory = 0x10;", "Memory", "cannot be used"),
    (RUN + "Cores = 0;", "Cores", "between"),
    (RUN + "Cores = 1.5;", "Cores", "whole number"),
    (RUN + "Cores = 99999999999999999999;", "Cores", "cannot be used"),
    (RUN + 'Gpus = "1";', "Gpus", "whole number"),
    (RUN + "Priority = undefined;", "Priority", "plain value, not undefined"),
    (RUN + "Priority = 1 + 1;", "Priority", "plain value, not 1 + 1"),
    (RUN + "Array = 0;", "Array", "no job at all"),
    (RUN + 'Array = "9-5";', "Array", "no job at all"),
    (RUN + "Array = 1000001;", "Array", "1000000 are the most"),
    (RUN + 'Array = "a-b";', "Array", "range"),
    (RUN + 'Split = "file";', "Split", "production"),
    (RUN + 'Array = 5; Split = "production:1-5";', "Split", "combined"),
    (RUN + "Sweep = [];", "Sweep", "ad of lists"),
    (RUN + "Sweep = {1, 2};", "Sweep", "ad of lists"),
    (RUN + "Sweep = [ a = {} ];", "a", "must be a list"),
    (RUN + "Sweep = [ index = {1} ];", "index", "cannot be swept"),
    (RUN + "Sweep = [ a = {1}; A = {2} ];", "Sweep", "gives A twice"),
    (RUN + "Array = 1000; Sweep = [ a = {" + ",".join(["1"] * 1001) + "} ];", "Sweep", "1001000 jobs"),
    (RUN + "Requirements = other.Memory >;", "Requirements", "not a ClassAd expression"),
    (RUN + "Requirements = false;", "Requirements", "no machine could run"),
    (RUN + 'Requirements = "yes";', "Requirements", "no machine could run"),
    (RUN + "Requirements = my . Memory > 5;", "Requirements", "no attribute MY.Memory"),
    (RUN + "Requirements = 1 / 0;", "Requirements", "no machine could run"),
    (RUN + 'Requirements = userHome("root") == other.Home;', "Requirements", "'userHome' may not be used"),
    (RUN + "Requirements = EVAL (other.X);", "Requirements", "'EVAL' may not be used"),
    (RUN + "Requirements = time() > other.X;", "Requirements", "'time' may not be used"),
    (RUN + "Requirements = random() < other.X;", "Requirements", "'random' may not be used"),
    (RUN + "Requirements = 'userHome'(\"root\") == other.X;", "line 1", "single quote"),
    (RUN + 'Requirements = envV("PATH") == other.X;', "Requirements", "'envV' may not be used"),
    (RUN + f"Requirements = {'(' * 100}other.X{')' * 100};", "line 1", "nested more than"),
    (RUN + f"Requirements = {'!' * 2000}other.X;", "Requirements", "not a ClassAd expression"),
    (RUN + f"Requirements = {'other.X && ' * 1000}true;", "Requirements", f"{MAXIMUM_EXPRESSION} are the most"),
    (RUN + 'JobName = "a\\tb";', "JobName", "control character"),
    (RUN + f'JobName = "{"x" * 201}";', "JobName", "200 are the most"),
    (RUN + 'StdOutput = "../x";', "StdOutput", "not the plain name"),
    (RUN + 'X_mine = strcat("a");', "X_mine", "calls the function"),
    (RUN + f'X_big = "{"x" * 1_000_000}";', "line 1", f"{MAXIMUM_TEXT} are the most"),
]


@pytest.mark.parametrize(("text", "place", "words"), BROKEN, ids=[f"{i}-{b[2][:30]}" for i, b in enumerate(BROKEN)])
def test_a_broken_description_is_one_clear_line(text: str, place: str, words: str) -> None:
    with pytest.raises(JobDescriptionError) as caught:
        parse(text)
    line = str(caught.value)
    assert words in line
    assert place in caught.value.where
    assert caught.value.where.startswith("line ")
    assert "\n" not in line
    assert len(line) < 400


async def test_a_broken_description_makes_nothing(site: Site) -> None:
    for text, _, _ in BROKEN:
        with pytest.raises(JobDescriptionError):
            await site.queue.submit("anna", text, {})
    assert await site.queue.submissions(user=None, limit=10) == []
    assert sum((await site.queue.counts()).values()) == 0
    assert site.woken == []


def test_errors_name_the_right_line() -> None:
    with pytest.raises(JobDescriptionError, match=r"^line 5, Cores: "):
        parse('# one\n[\n  Executable = "a"; /* two\n lines */\n  Cores = "x";\n]')
    with pytest.raises(JobDescriptionError, match=r"^line 3, b: "):
        parse('Executable = "a";\nSweep = [ a = {1};\n  b = 5 ];')


@given(st.text(max_size=200))
def test_no_text_does_anything_but_parse_or_fail_in_one_line(text: str) -> None:
    try:
        parse(text)
    except JobDescriptionError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ATTRIBUTES),
            st.one_of(
                st.integers().map(str),
                st.floats(allow_nan=False).map(str),
                st.text(alphabet='ab$()#*/.-"\\ 09', max_size=12).map(lambda text: f'"{text}"'),
                st.just("{}"),
                st.just('{"a", {"b"}}'),
                st.just("[ a = {1, 2}; b = other.X ]"),
                st.just("other.X"),
            ),
        ),
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_no_value_of_any_attribute_does_anything_else(pairs: list[tuple[str, str]]) -> None:
    try:
        job = parse("".join(f"{name} = {value};\n" for name, value in pairs))
        told = f"line of job {job.assignment(JobId('1.0'), job.size - 1, 1, ()).job}"
    except JobDescriptionError as error:
        told = error.where
    assert told.startswith("line ")
