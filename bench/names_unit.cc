// SPDX-License-Identifier: MIT
/*
 * One unit of many, each the same code with types of its own (UNIT): what the standard library's
 * containers, algorithms and regular expressions make of a few lines. Compiled often enough it is a
 * program with as much debug information as a large one has. UNIT 0 is main().
 */
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

template <int unit> struct key {
	long value;

	bool operator<(const key &other) const
	{
		return value < other.value;
	}
	bool operator==(const key &other) const
	{
		return value == other.value;
	}
};

template <int unit> struct hash {
	size_t operator()(const key<unit> &k) const
	{
		return static_cast<size_t>(k.value) * 31u;
	}
};

template <int unit> long work(const std::string &text);

#if UNIT > 0

template <int variant> static long work_with(const std::string &text)
{
	using key_type = key<variant>;
	std::map<key_type, std::string> by_key;
	std::unordered_map<key_type, std::vector<key_type>, hash<variant>> by_hash;
	std::set<key_type> keys;
	std::vector<std::pair<key_type, std::string>> pairs;
	std::vector<std::function<long(key_type)>> functions;
	std::vector<std::shared_ptr<key_type>> pointers;
	std::variant<key_type, std::string, std::vector<key_type>> any = key_type{4};
	std::ostringstream out;
	long sum = 0;

	for (char c : text) {
		key_type k{c};

		by_key[k] += c;
		by_hash[k].push_back(k);
		keys.insert(k);
		pairs.emplace_back(k, text);
		functions.push_back([k](key_type other) { return k.value + other.value; });
		pointers.push_back(std::make_shared<key_type>(k));
	}
	std::sort(pairs.begin(), pairs.end());
	std::stable_sort(pairs.begin(), pairs.end(),
			 [](auto &a, auto &b) { return b.first < a.first; });
	for (auto &f : functions)
		sum += f(key_type{3});
	for (auto &p : pointers)
		sum += p->value;
	if (sum & 1)
		any = text;
	sum += std::visit([](auto &&x) -> long { return sizeof(x); }, any);
	for (auto &entry : by_key)
		out << entry.first.value << entry.second;
	for (auto &entry : by_hash)
		out << entry.second.size();
	for (auto &k : keys)
		out << k.value;
	return sum + static_cast<long>(out.str().size() + pairs.size());
}

template <> long work<UNIT>(const std::string &text)
{
	std::regex expression("a(b|c)*[d-f]+");
	std::smatch match;
	long sum = std::regex_search(text, match, expression);

	return sum + work_with<4 * UNIT>(text) + work_with<4 * UNIT + 1>(text) +
	       work_with<4 * UNIT + 2>(text) + work_with<4 * UNIT + 3>(text);
}

#else

template <int unit> static long work_up_to(const std::string &text)
{
	if constexpr (unit == 0)
		return 0;
	else
		return work<unit>(text) + work_up_to<unit - 1>(text);
}

int main(int argc, char **argv)
{
	return argc > 1 ? static_cast<int>(work_up_to<N_UNITS>(argv[1]) & 1) : 0;
}

#endif
