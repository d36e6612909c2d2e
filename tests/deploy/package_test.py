#!/usr/bin/env python3
"""Packages, their list of parts, the systemd unit, and the places that repeat the version.

    package_test.py BUILD_FOLDER      the folder with CPackConfig.cmake and the built programs
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ""
SERVER, PROGRAM = (os.path.join(BUILD, "cli", name) for name in ("nestrec-serve", "nestrec"))


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def text(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


VERSION = re.search(r"project\(nestrec VERSION (\S+)", text("CMakeLists.txt")).group(1)


class Version(unittest.TestCase):
    def test_is_the_same_everywhere(self):
        self.assertEqual(run(PROGRAM, "--version").strip(), f"nestrec {VERSION}")
        self.assertEqual(run(SERVER, "--version").strip(), f"nestrec {VERSION}")
        self.assertIn(f"\nversion: {VERSION}\n", text("CITATION.cff"))
        self.assertIn(f'\nappVersion: "{VERSION}"\n', text("deploy/helm/nestrec/Chart.yaml"))
        self.assertIn(f"\n## {VERSION} - ", text("CHANGELOG.md"))
        self.assertIn(f'VERSION: "{VERSION}"', text("docker/compose.yaml"))
        self.assertIn(f"./nestrec-server_{VERSION}_amd64.deb", text("docs/packages.md"))
        example = text("deploy/kustomize/base/nestrec.yaml")
        self.assertEqual(set(re.findall(r"(?:nestrec/serve:|app.kubernetes.io/version: )\"?([0-9.]+)", example)), {VERSION})

    def test_is_that_of_the_newest_release(self):
        """A package or an image that carries a release's number holds what the changelog says of that release."""
        newest = re.search(r"^## (\S+) - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.M)
        self.assertEqual(newest.group(1), VERSION)

    def test_is_on_every_image(self):
        dockerfile = text("docker/Dockerfile")
        for stage in ("train", "serve"):
            labels = re.search(rf"AS {stage}\n(.*?)(?=\nFROM|\Z)", dockerfile, re.S).group(1)
            for name, argument in (("version", "VERSION"), ("revision", "REVISION"), ("created", "CREATED")):
                self.assertIn(f'org.opencontainers.image.{name}="${{{argument}}}"', labels)
                self.assertIn(f"ARG {argument}=", labels)
        command = run("make", "-n", "images", cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": "86400"})
        for argument in ("VERSION=$version", "REVISION=$(git rev-parse HEAD)", "CREATED=$created"):
            self.assertIn(f"--build-arg {argument}", command)


class Server(unittest.TestCase):
    def test_loads_no_libtorch(self):
        self.assertIn("libtorch", run("ldd", PROGRAM))
        self.assertNotIn("libtorch", run("ldd", SERVER))

    def test_says_where_training_is(self):
        result = subprocess.run([SERVER, "train", "--data", "x"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("train is not in this program", result.stderr)
        self.assertIn("nestrec/train", result.stderr)


class Parts(unittest.TestCase):
    """tools/runtime_packages.sh and tools/sbom.sh."""

    def test_every_loaded_package_is_in_the_sbom_with_its_version(self):
        bill = json.loads(run("tools/sbom.sh", SERVER, cwd=ROOT))
        versions = {each["name"]: each["version"] for each in bill["components"]}
        for package in run("tools/runtime_packages.sh", SERVER, cwd=ROOT).split():
            with self.subTest(package):
                self.assertEqual(versions[package], run("dpkg-query", "-W", "-f", "${Version}\n", package).split("\n")[0])
        self.assertEqual(bill["metadata"]["component"]["version"], VERSION)
        self.assertEqual(bill["dependencies"][0]["dependsOn"], [each["bom-ref"] for each in bill["components"]])
        licences = {each["name"]: each["licenses"] for each in bill["components"]}
        self.assertIn({"license": {"name": "Apache-2.0"}}, next(value for name, value in licences.items() if name.startswith("libgrpc++")))

    def test_every_component_has_a_licence(self):
        for program in (SERVER, PROGRAM):
            rows = [line.split() for line in run("tools/sbom.sh", "--table", program, cwd=ROOT).splitlines()]
            self.assertEqual([row[-1] for row in rows if "NOASSERTION" in row], [])
        for package, licence in (("libstdc++6", "GCC Runtime Library Exception"), ("libc6", "LGPL-2.1+"), ("libgrpc", "Apache-2.0")):
            self.assertIn(licence, " ".join(next(row for row in rows if row[-1].startswith(package))))

    def test_an_older_copyright_file_is_read_by_what_it_quotes(self):
        """Of a made-up package, in a made-up /usr/share/doc."""
        script = text("tools/sbom.sh")
        functions = script[script.index("stated_licence()"):script.index("components()")]
        with tempfile.TemporaryDirectory() as folder:
            for name, content, expected in (
                    ("liba", "On Debian it is in /usr/share/common-licenses/LGPL-3.\nPermission is hereby granted,\n  free of charge", "LGPL-3; MIT"),
                    ("libb", "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: Zlib\n", "Zlib"),
                    ("libc", "Ask the author.", "NOASSERTION"), ("libc6", "See GPL-2 too", "LGPL-2.1+"), ("libd", None, "NOASSERTION")):
                if content is not None:
                    os.makedirs(os.path.join(folder, name))
                    with open(os.path.join(folder, name, "copyright"), "w") as file:
                        file.write(content)
                with self.subTest(name):
                    here = functions.replace("/usr/share/doc/", folder + "/")
                    self.assertEqual(run("bash", "-euo", "pipefail", "-c", f"{here}\nlicences_of {name}").strip(), expected)

    def test_make_package_lists_both_programs(self):
        command = run("make", "-n", "package", cwd=ROOT)
        self.assertIn("sbom.sh cli/nestrec >nestrec.cdx.json", command)
        self.assertIn("sbom.sh cli/nestrec-serve >nestrec-server.cdx.json", command)

    def test_no_library_of_the_build_is_forgotten(self):
        parts = {each["name"] for each in json.loads(run("tools/sbom.sh", PROGRAM, cwd=ROOT))["components"]}
        no_libraries = {"dpkg-dev", "libgmock-dev", "libgtest-dev"}  # tools, or for tests
        section = re.search(r"\[build\]\n(.*?)\n#|\Z", text("tools/apt-packages.txt"), re.S).group(1)
        for entry in re.findall(r"^(\S+-dev)$", section, re.M):
            if entry in no_libraries or entry in parts:
                continue
            with self.subTest(entry):
                shown = subprocess.run(["dpkg-query", "-W", "-f", "${Depends}", entry], capture_output=True, text=True)
                if shown.returncode != 0:
                    continue  # another alternative of this release is installed
                needed = set(re.findall(r"[a-z0-9][a-z0-9+.-]+", shown.stdout))
                self.assertTrue(needed & parts, f"{entry} is compiled in: name it in tools/sbom.sh")

    def test_names_the_program_that_is_not_there(self):
        result = subprocess.run(["tools/sbom.sh", "/nowhere/nestrec"], cwd=ROOT, capture_output=True, text=True)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("/nowhere/nestrec is not there", result.stderr)


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        for tool in ("cpack", "dpkg-shlibdeps", "file"):
            if not shutil.which(tool):
                raise unittest.SkipTest(f"{tool} is not there")
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.settings_before = cls.settings_here()
        run("cpack", "-G", "DEB;TGZ", "-B", cls.folder.name, cwd=BUILD)
        cls.files = sorted(each for each in os.listdir(cls.folder.name) if each.endswith((".deb", ".tar.gz")))

    @staticmethod
    def settings_here():
        path = "/etc/default/nestrec-server"
        if not os.path.exists(path):
            return None
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime

    def test_are_made_without_a_change_of_this_machine(self):
        self.assertEqual(self.settings_here(), self.settings_before)

    def test_the_tarball_has_all_that_its_unit_needs(self):
        with tempfile.TemporaryDirectory() as folder:
            run("tar", "-xf", os.path.join(self.folder.name, next(each for each in self.files if each.endswith(".tar.gz"))), "-C", folder)
            self.assertEqual(os.listdir(folder), [f"nestrec-{VERSION}-{os.uname().machine}"])
            root = os.path.join(folder, os.listdir(folder)[0])
            with open(os.path.join(root, "usr/lib/systemd/system/nestrec-server.service")) as file:
                for needed in re.findall(r"^(?:EnvironmentFile=|ExecStart=)(/\S+)", file.read(), re.M):
                    self.assertTrue(os.path.exists(root + needed), needed)
            for document, program in (("nestrec-server", SERVER), ("nestrec", PROGRAM)):
                with open(os.path.join(root, "usr/share/doc", document, "packages")) as file:
                    self.assertEqual(file.read().split(), run("tools/runtime_packages.sh", program, cwd=ROOT).split())
            # The page's commands name files of it.
            for each in re.findall(r"^    .*?[ (]((?:usr|etc)/[\w./-]+)", text("docs/packages.md"), re.M):
                self.assertTrue(os.path.exists(os.path.join(root, each)), each)

    def deb(self, name):
        return os.path.join(self.folder.name, next(each for each in self.files if each.startswith(name + "_")))

    def test_are_two_debs_and_a_tarball_that_carry_the_version(self):
        self.assertEqual(len(self.files), 3, self.files)
        for each in self.files:
            self.assertIn(VERSION, each)

    def test_depend_on_what_they_load(self):
        server = run("dpkg-deb", "-f", self.deb("nestrec-server"), "Depends")
        whole = run("dpkg-deb", "-f", self.deb("nestrec"), "Depends")
        for library in ("libc6", "libgrpc++1"):
            self.assertIn(library, server)
        self.assertNotIn("libtorch", server)
        self.assertIn("libtorch", whole)

    def test_bring_the_openblas_that_does_not_fight_openmp(self):
        """On a machine with no package at all, as apt works it out."""
        for name in ("nestrec-server", "nestrec"):
            self.assertIn("libopenblas0-openmp", run("dpkg-deb", "-f", self.deb(name), "Depends"))
            status = os.path.join(self.folder.name, "status")
            with open(status, "w"):
                pass
            result = subprocess.run(["apt-get", "-s", "-o", f"Dir::State::status={status}", "--no-install-recommends", "install", self.deb(name)],
                                    capture_output=True, text=True)
            if result.returncode != 0:
                self.skipTest(f"apt-get cannot say what it would install: {result.stderr[-200:]}")
            self.assertIn("\nInst libopenblas0-openmp ", result.stdout)
            self.assertNotIn("libopenblas0-pthread", result.stdout)

    def test_the_server_comes_with_its_unit_and_runs(self):
        with tempfile.TemporaryDirectory() as root:
            run("dpkg-deb", "-x", self.deb("nestrec-server"), root)
            self.assertEqual(run(os.path.join(root, "usr/bin/nestrec-serve"), "--version").strip(), f"nestrec {VERSION}")
            for path in ("usr/lib/systemd/system/nestrec-server.service", "etc/default/nestrec-server",
                         "usr/share/doc/nestrec-server/copyright"):
                self.assertTrue(os.path.exists(os.path.join(root, path)), path)
        control = run("dpkg-deb", "-I", self.deb("nestrec-server"), "conffiles")
        self.assertEqual(control.split(), ["/etc/default/nestrec-server"])


class Unit(unittest.TestCase):
    def test_is_hardened(self):
        if not shutil.which("systemd-analyze"):
            self.skipTest("systemd-analyze is not there")
        result = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20",
                                 os.path.join(ROOT, "deploy/systemd/nestrec-server.service")], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout[-400:] + result.stderr)

    def test_starts_the_program_with_flags_that_it_has(self):
        settings = dict(re.findall(r'^(NESTREC_\w+)="(.*)"$', text("deploy/systemd/nestrec-server.default"), re.M))
        line = re.search(r"^ExecStart=(.*)$", text("deploy/systemd/nestrec-server.service"), re.M).group(1)
        line = re.sub(r"\$\{?(\w+)\}?", lambda name: settings[name.group(1)], line)
        with tempfile.TemporaryDirectory() as folder:
            arguments = line.replace("/var/lib/nestrec/models", folder + "/none").replace("127.0.0.1:50051", "127.0.0.1:0").split()
            result = subprocess.run([SERVER, *arguments[1:]], capture_output=True, text=True)
        # All is right but the model, which is not there: 2 would be the command line.
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("none", result.stderr)


if __name__ == "__main__":
    if not os.path.exists(SERVER):
        sys.exit("usage: package_test.py BUILD_FOLDER")
    unittest.main()
